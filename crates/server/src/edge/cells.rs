//! A typed look into Arrow columns, one cell at a time: what every edge that writes rows reads from.
//!
//! What always holds: [`Cells::cell`] never panics for a row below the batch's row count, whatever the column's type;
//! a type without a variant of its own comes out as text. Deliberately not here: how a value is spelled, which is the
//! business of each protocol.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, GenericListArray,
    LargeBinaryArray, LargeStringArray, OffsetSizeTrait, PrimitiveArray, StringArray, StringViewArray, StructArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_MILLI: i64 = 1_000;
const MILLIS_PER_DAY: i64 = 86_400_000;

/// One value. Borrowed from the column it came from.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    Null,
    Boolean(bool),
    Long(i64),
    /// An unsigned value above `i64::MAX`; smaller ones come as [`Cell::Long`].
    BigUnsigned(u64),
    Double(f64),
    Float(f32),
    Text(&'a str),
    /// A value of a type without a variant of its own, as text. `number` when it is a number of any precision.
    Rendered {
        text: String,
        number: bool,
    },
    Binary(&'a [u8]),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp {
        micros: i64,
    },
    /// Days since 1970-01-01.
    Date {
        days: i64,
    },
    List(ListCell<'a>),
    Struct(StructCell<'a>),
}

/// The elements of one list value.
#[derive(Debug, Clone, Copy)]
pub struct ListCell<'a> {
    elements: &'a Cells<'a>,
    from: usize,
    to: usize,
}

impl PartialEq for ListCell<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> ListCell<'a> {
    pub fn len(&self) -> usize {
        self.to - self.from
    }

    pub fn iter(&self) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        let elements = self.elements;
        (self.from..self.to).map(move |row| elements.cell(row))
    }
}

/// The fields of one struct value.
#[derive(Debug, Clone, Copy)]
pub struct StructCell<'a> {
    names: &'a [String],
    fields: &'a [Cells<'a>],
    row: usize,
}

impl PartialEq for StructCell<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> StructCell<'a> {
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Cell<'a>)> + use<'a> {
        let row = self.row;
        self.names.iter().zip(self.fields).map(move |(name, cells)| (name.as_str(), cells.cell(row)))
    }
}

/// One column, with its type found out once instead of once per cell.
pub struct Cells<'a> {
    array: &'a dyn Array,
    kind: Kind<'a>,
}

impl std::fmt::Debug for Cells<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Cells({}, {} rows)", self.array.data_type(), self.array.len())
    }
}

enum Kind<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Integer(IntegerColumn<'a>),
    Double(&'a [f64]),
    Float(&'a [f32]),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
    FixedBinary(&'a FixedSizeBinaryArray),
    Timestamp { values: &'a [i64], unit: TimeUnit },
    Date32(&'a [i32]),
    Date64(&'a [i64]),
    Dictionary { keys: Vec<usize>, values: Box<Cells<'a>> },
    List { offsets: Vec<(usize, usize)>, elements: Box<Cells<'a>> },
    Struct { names: Vec<String>, fields: Vec<Cells<'a>> },
    Other { formatter: Option<ArrayFormatter<'a>>, number: bool },
}

enum IntegerColumn<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

static DISPLAY: FormatOptions<'static> = FormatOptions::new();

impl<'a> Cells<'a> {
    pub fn new(array: &'a dyn Array) -> Self {
        Self { array, kind: kind_of(array) }
    }

    /// The value at `row`. A row past the end is null.
    pub fn cell(&'a self, row: usize) -> Cell<'a> {
        if row >= self.array.len() || self.array.is_null(row) {
            return Cell::Null;
        }
        match &self.kind {
            Kind::Null => Cell::Null,
            Kind::Boolean(values) => Cell::Boolean(values.value(row)),
            Kind::Integer(values) => values.cell(row),
            Kind::Double(values) => Cell::Double(values[row]),
            Kind::Float(values) => Cell::Float(values[row]),
            Kind::Text(values) => Cell::Text(values.value(row)),
            Kind::LargeText(values) => Cell::Text(values.value(row)),
            Kind::TextView(values) => Cell::Text(values.value(row)),
            Kind::Binary(values) => Cell::Binary(values.value(row)),
            Kind::LargeBinary(values) => Cell::Binary(values.value(row)),
            Kind::BinaryView(values) => Cell::Binary(values.value(row)),
            Kind::FixedBinary(values) => Cell::Binary(values.value(row)),
            Kind::Timestamp { values, unit } => Cell::Timestamp { micros: to_micros(values[row], *unit) },
            Kind::Date32(values) => Cell::Date { days: i64::from(values[row]) },
            Kind::Date64(values) => Cell::Date { days: values[row].div_euclid(MILLIS_PER_DAY) },
            Kind::Dictionary { keys, values } => keys.get(row).map_or(Cell::Null, |key| values.cell(*key)),
            Kind::List { offsets, elements } => {
                let (from, to) = offsets[row];
                Cell::List(ListCell { elements, from, to })
            }
            Kind::Struct { names, fields } => Cell::Struct(StructCell { names, fields, row }),
            Kind::Other { formatter, number } => Cell::Rendered {
                text: formatter.as_ref().and_then(|f| f.value(row).try_to_string().ok()).unwrap_or_default(),
                number: *number,
            },
        }
    }
}

impl IntegerColumn<'_> {
    fn cell<'c>(&self, row: usize) -> Cell<'c> {
        match self {
            Self::I8(values) => Cell::Long(i64::from(values[row])),
            Self::I16(values) => Cell::Long(i64::from(values[row])),
            Self::I32(values) => Cell::Long(i64::from(values[row])),
            Self::I64(values) => Cell::Long(values[row]),
            Self::U8(values) => Cell::Long(i64::from(values[row])),
            Self::U16(values) => Cell::Long(i64::from(values[row])),
            Self::U32(values) => Cell::Long(i64::from(values[row])),
            Self::U64(values) => i64::try_from(values[row]).map_or(Cell::BigUnsigned(values[row]), Cell::Long),
        }
    }
}

fn values<T: ArrowPrimitiveType>(array: &dyn Array) -> &[T::Native] {
    let typed: &PrimitiveArray<T> = array.as_primitive::<T>();
    typed.values()
}

fn kind_of(array: &dyn Array) -> Kind<'_> {
    match array.data_type() {
        DataType::Null => Kind::Null,
        DataType::Boolean => Kind::Boolean(array.as_boolean()),
        DataType::Int8 => Kind::Integer(IntegerColumn::I8(values::<Int8Type>(array))),
        DataType::Int16 => Kind::Integer(IntegerColumn::I16(values::<Int16Type>(array))),
        DataType::Int32 => Kind::Integer(IntegerColumn::I32(values::<Int32Type>(array))),
        DataType::Int64 => Kind::Integer(IntegerColumn::I64(values::<Int64Type>(array))),
        DataType::UInt8 => Kind::Integer(IntegerColumn::U8(values::<UInt8Type>(array))),
        DataType::UInt16 => Kind::Integer(IntegerColumn::U16(values::<UInt16Type>(array))),
        DataType::UInt32 => Kind::Integer(IntegerColumn::U32(values::<UInt32Type>(array))),
        DataType::UInt64 => Kind::Integer(IntegerColumn::U64(values::<UInt64Type>(array))),
        DataType::Float32 => Kind::Float(values::<Float32Type>(array)),
        DataType::Float64 => Kind::Double(values::<Float64Type>(array)),
        DataType::Utf8 => Kind::Text(array.as_string()),
        DataType::LargeUtf8 => Kind::LargeText(array.as_string()),
        DataType::Utf8View => Kind::TextView(array.as_string_view()),
        DataType::Binary => Kind::Binary(array.as_binary()),
        DataType::LargeBinary => Kind::LargeBinary(array.as_binary()),
        DataType::BinaryView => Kind::BinaryView(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => Kind::FixedBinary(array.as_fixed_size_binary()),
        DataType::Timestamp(unit, _) => Kind::Timestamp { values: timestamps(array, *unit), unit: *unit },
        DataType::Date32 => Kind::Date32(values::<Date32Type>(array)),
        DataType::Date64 => Kind::Date64(values::<Date64Type>(array)),
        _ => nested(array),
    }
}

fn timestamps(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => values::<TimestampSecondType>(array),
        TimeUnit::Millisecond => values::<TimestampMillisecondType>(array),
        TimeUnit::Microsecond => values::<TimestampMicrosecondType>(array),
        TimeUnit::Nanosecond => values::<TimestampNanosecondType>(array),
    }
}

fn to_micros(value: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => value.saturating_mul(MICROS_PER_SECOND),
        TimeUnit::Millisecond => value.saturating_mul(MICROS_PER_MILLI),
        TimeUnit::Microsecond => value,
        TimeUnit::Nanosecond => value.div_euclid(1_000),
    }
}

fn nested(array: &dyn Array) -> Kind<'_> {
    match array.data_type() {
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            if dictionary.values().is_empty() {
                return Kind::Null;
            }
            Kind::Dictionary {
                keys: dictionary.normalized_keys(),
                values: Box::new(Cells::new(dictionary.values().as_ref())),
            }
        }
        DataType::List(_) => list(array.as_list::<i32>()),
        DataType::LargeList(_) => list(array.as_list::<i64>()),
        DataType::FixedSizeList(_, _) => {
            let typed = array.as_fixed_size_list();
            let width = usize::try_from(typed.value_length()).unwrap_or_default();
            Kind::List {
                offsets: (0..typed.len()).map(|row| (row * width, (row + 1) * width)).collect(),
                elements: Box::new(Cells::new(typed.values().as_ref())),
            }
        }
        DataType::Struct(_) => structure(array.as_struct()),
        other => Kind::Other {
            formatter: ArrayFormatter::try_new(array, &DISPLAY).ok(),
            number: matches!(
                other,
                DataType::Decimal32(_, _)
                    | DataType::Decimal64(_, _)
                    | DataType::Decimal128(_, _)
                    | DataType::Decimal256(_, _)
                    | DataType::Float16
            ),
        },
    }
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Kind<'_> {
    Kind::List {
        offsets: array.value_offsets().windows(2).map(|pair| (pair[0].as_usize(), pair[1].as_usize())).collect(),
        elements: Box::new(Cells::new(array.values().as_ref())),
    }
}

fn structure(array: &StructArray) -> Kind<'_> {
    Kind::Struct {
        names: array.fields().iter().map(|field| field.name().clone()).collect(),
        fields: array.columns().iter().map(|column: &ArrayRef| Cells::new(column.as_ref())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Int64Array, ListArray, UInt64Array};
    use arrow::datatypes::Int32Type as I32;

    #[test]
    fn every_kind_of_column_gives_its_cells() {
        let longs = Int64Array::from(vec![Some(-1), None]);
        let cells = Cells::new(&longs);
        assert_eq!(cells.cell(0), Cell::Long(-1));
        assert_eq!(cells.cell(1), Cell::Null);
        assert_eq!(cells.cell(2), Cell::Null, "past the end");

        let big = UInt64Array::from(vec![7, u64::MAX]);
        assert_eq!(Cells::new(&big).cell(0), Cell::Long(7));
        assert_eq!(Cells::new(&big).cell(1), Cell::BigUnsigned(u64::MAX));

        let dictionary: DictionaryArray<I32> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
        let cells = Cells::new(&dictionary);
        assert_eq!([cells.cell(0), cells.cell(1), cells.cell(3)], [Cell::Text("a"), Cell::Null, Cell::Text("a")]);

        let lists = ListArray::from_iter_primitive::<I32, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        let cells = Cells::new(&lists);
        let Cell::List(first) = cells.cell(0) else { panic!("not a list") };
        assert_eq!(first.iter().collect::<Vec<_>>(), vec![Cell::Long(1), Cell::Null]);
        assert_eq!(cells.cell(1), Cell::Null);
        let Cell::List(empty) = cells.cell(2) else { panic!("not a list") };
        assert_eq!(empty.len(), 0);
    }

    #[test]
    fn a_sliced_column_keeps_its_rows() {
        let lists =
            ListArray::from_iter_primitive::<I32, _, _>(vec![Some(vec![Some(1)]), Some(vec![Some(2), Some(3)])]);
        let sliced = lists.slice(1, 1);
        let cells = Cells::new(&sliced);
        let Cell::List(only) = cells.cell(0) else { panic!("not a list") };
        assert_eq!(only.iter().collect::<Vec<_>>(), vec![Cell::Long(2), Cell::Long(3)]);
    }
}
