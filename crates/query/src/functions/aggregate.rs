//! ARRAY_CONCAT_AGG: the arrays of a group as one.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

#[derive(Debug)]
pub struct ArrayConcatAgg {
    signature: Signature,
}

impl ArrayConcatAgg {
    pub fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl PartialEq for ArrayConcatAgg {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for ArrayConcatAgg {}

impl Hash for ArrayConcatAgg {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "array_concat_agg".hash(state);
    }
}

impl AggregateUDFImpl for ArrayConcatAgg {
    fn name(&self) -> &str {
        "array_concat_agg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [list @ DataType::List(_)] => Ok(list.clone()),
            _ => plan_err!("ARRAY_CONCAT_AGG takes an array"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("arrays", args.return_field.data_type().clone(), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let element = match args.return_field.data_type() {
            DataType::List(field) => field.data_type().clone(),
            other => other.clone(),
        };
        Ok(Box::new(Concat { arrays: Vec::new(), element }))
    }
}

#[derive(Debug)]
struct Concat {
    arrays: Vec<ArrayRef>,
    element: DataType,
}

impl Accumulator for Concat {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // Behind the argument come the columns of an ORDER BY; the rows are sorted by them already.
        if let Some(arrays) = values.first() {
            self.arrays.extend(arrays.as_list::<i32>().iter().flatten());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let parts: Vec<&dyn Array> = self.arrays.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            return Ok(ScalarValue::new_null_list(self.element.clone(), true, 1));
        }
        let all = datafusion::arrow::compute::concat(&parts)?;
        let items = (0..all.len()).map(|at| ScalarValue::try_from_array(&all, at)).collect::<Result<Vec<_>>>()?;
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&items, &self.element)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.arrays.iter().map(|array| array.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
