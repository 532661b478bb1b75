//! One shape for all our scalar functions, so that each is three small functions and a row of a table.

use std::hash::{Hash, Hasher};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// Milliseconds since 1970 UTC: the one timestamp type of this room.
pub const MILLIS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

type Coerce = fn(&[DataType]) -> Result<Vec<DataType>>;
type Returns = fn(&[DataType]) -> Result<DataType>;
type Invoke = fn(&ScalarFunctionArgs) -> Result<ColumnarValue>;

/// A scalar function: its name says which; two of one name are equal.
#[derive(Debug)]
pub struct Scalar {
    name: &'static str,
    signature: Signature,
    coerce: Coerce,
    returns: Returns,
    invoke: Invoke,
}

impl Scalar {
    pub fn new(name: &'static str, coerce: Coerce, returns: Returns, invoke: Invoke) -> Self {
        Self { name, signature: Signature::user_defined(Volatility::Immutable), coerce, returns, invoke }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        (self.returns)(arg_types)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        (self.coerce)(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        (self.invoke)(&args)
    }
}

/// The n-th argument as an array of the batch's length.
pub fn array_arg(args: &ScalarFunctionArgs, at: usize) -> Result<ArrayRef> {
    match args.args.get(at) {
        Some(value) => value.to_array(args.number_rows),
        None => exec_err!("argument {} is missing", at + 1),
    }
}

/// True if every argument is a constant: the answer then is one too.
pub fn all_constant(args: &ScalarFunctionArgs) -> bool {
    args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
}

/// An array made from the arguments; a constant if all arguments are.
pub fn answer(args: &ScalarFunctionArgs, array: ArrayRef) -> Result<ColumnarValue> {
    if all_constant(args) && !array.is_empty() {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// The n-th argument, which must be a constant string; `None` if it is NULL or missing.
pub fn constant_text(args: &ScalarFunctionArgs, at: usize) -> Result<Option<String>> {
    match args.args.get(at) {
        None => Ok(None),
        Some(ColumnarValue::Scalar(value)) => scalar_text(value),
        Some(ColumnarValue::Array(array)) if array.len() == 1 => scalar_text(&ScalarValue::try_from_array(array, 0)?),
        Some(ColumnarValue::Array(_)) => exec_err!("argument {} must be a constant", at + 1),
    }
}

fn scalar_text(value: &ScalarValue) -> Result<Option<String>> {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => Ok(text.clone()),
        ScalarValue::Null => Ok(None),
        other => exec_err!("{other} is no text"),
    }
}

/// Named access to constant arguments of a call; see [`constant_text`].
pub struct Constants<'a>(pub &'a ScalarFunctionArgs);

impl Constants<'_> {
    /// # Errors
    /// If the argument is not constant.
    pub fn text(&self, at: usize) -> Result<Option<String>> {
        constant_text(self.0, at)
    }

    /// # Errors
    /// If the argument is not constant or NULL.
    pub fn needed(&self, at: usize, what: &str) -> Result<String> {
        match constant_text(self.0, at)? {
            Some(text) => Ok(text),
            None => exec_err!("{what} must not be NULL"),
        }
    }
}

/// Every argument is made text.
pub fn all_text(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![DataType::Utf8; types.len()])
}

/// Arguments stay as they are.
pub fn as_given(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(types.to_vec())
}

/// The first argument is a time, the others are text.
pub fn time_then_text(types: &[DataType]) -> Result<Vec<DataType>> {
    let Some(first) = types.first() else { return plan_err!("a time is missing") };
    time_type(first)?;
    Ok(std::iter::once(MILLIS).chain(types.iter().skip(1).map(|_| DataType::Utf8)).collect())
}

/// Fails for what cannot be a time.
pub fn time_type(given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => Ok(MILLIS),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(MILLIS),
        given if given.is_integer() => Ok(MILLIS),
        other => plan_err!("{other} is no time; expected a TIMESTAMP"),
    }
}

pub fn returns_time(_: &[DataType]) -> Result<DataType> {
    Ok(MILLIS)
}

pub fn returns_long(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Int64)
}

pub fn returns_text(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Utf8)
}

pub fn returns_boolean(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Boolean)
}

pub fn returns_first(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(first) => Ok(first.clone()),
        None => plan_err!("an argument is missing"),
    }
}
