//! APPROX_QUANTILE: the value at a share of a group's values, by the store's sketch. The segment engine does it where
//! it can (`plan::aggregate`); this is the rest: expressions, subqueries, windows.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use store::sketch::{K_MAX, K_MIN, Quantiles, Share};

/// The function's name in plans: value, share, accuracy.
pub const APPROX_QUANTILE: &str = "approx_quantile";

#[derive(Debug)]
pub struct ApproxQuantile {
    signature: Signature,
}

impl ApproxQuantile {
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl PartialEq for ApproxQuantile {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for ApproxQuantile {}

impl Hash for ApproxQuantile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        APPROX_QUANTILE.hash(state);
    }
}

/// What the literals after the value say.
pub fn quantile_of(share: &ScalarValue, k: &ScalarValue) -> Result<(Share, u16)> {
    let found = match share {
        ScalarValue::Float64(Some(share)) => Share::new(*share),
        _ => None,
    };
    let Some(share) = found else {
        return plan_err!("the probability of APPROX_QUANTILE has to be a number from 0 to 1, not {share}");
    };
    let found = match k {
        ScalarValue::Int64(Some(k)) => u16::try_from(*k).ok().filter(|k| (K_MIN..=K_MAX).contains(k)),
        _ => None,
    };
    match found {
        Some(k) => Ok((share, k)),
        None => plan_err!("the accuracy of APPROX_QUANTILE has to be a number from {K_MIN} to {K_MAX}, not {k}"),
    }
}

fn literal<'a>(expr: Option<&'a Arc<dyn PhysicalExpr>>, what: &str) -> Result<&'a ScalarValue> {
    match expr.and_then(|expr| expr.downcast_ref::<Literal>()) {
        Some(literal) => Ok(literal.value()),
        None => plan_err!("the {what} of APPROX_QUANTILE has to be a literal"),
    }
}

impl AggregateUDFImpl for ApproxQuantile {
    fn name(&self) -> &str {
        APPROX_QUANTILE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types.first() {
            Some(ty) if ty.is_numeric() || ty.is_null() => {
                Ok(vec![DataType::Float64, DataType::Float64, DataType::Int64])
            }
            Some(ty) => plan_err!("APPROX_QUANTILE takes numbers, not {ty}; cast the column"),
            None => plan_err!("APPROX_QUANTILE takes an expression and a probability"),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new("sketch", DataType::Binary, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("APPROX_QUANTILE(DISTINCT ..) is not offered; group by the value first");
        }
        let share = literal(args.exprs.get(1), "probability")?;
        let (share, k) = quantile_of(share, literal(args.exprs.get(2), "accuracy")?)?;
        Ok(Box::new(Sketch { share, values: Quantiles::new(k) }))
    }
}

#[derive(Debug)]
struct Sketch {
    share: Share,
    values: Quantiles,
}

impl Accumulator for Sketch {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(values) = values.first() {
            values.as_primitive::<Float64Type>().iter().flatten().for_each(|value| self.values.add(value));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.values.quantile(self.share)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.values.to_bytes()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else { return Ok(()) };
        for bytes in states.as_binary::<i32>().iter().flatten() {
            match Quantiles::from_bytes(bytes) {
                Some(values) => self.values.merge(&values),
                None => return exec_err!("a quantile sketch of {} bytes could not be read", states.len()),
            }
        }
        Ok(())
    }
}
