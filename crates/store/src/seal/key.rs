//! Columns as sort and group keys: hash, equality and order of rows without a copy of them.
//!
//! Nulls are equal to each other and come first. Strings order by their bytes, doubles by IEEE total order,
//! lists element by element, a shorter one first.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher as _};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, StringArray};
use arrow_schema::DataType;

/// One column as part of a key.
pub(super) enum Key<'a> {
    Text(&'a StringArray),
    /// Also times.
    Long(&'a [i64], &'a dyn Array),
    Double(&'a [f64], &'a dyn Array),
    Boolean(&'a BooleanArray),
    List(&'a ListArray, Box<Key<'a>>),
}

/// The hash is that of a fixed seed: the same rows group in the same order everywhere.
pub(super) fn hasher() -> foldhash::fast::FixedState {
    foldhash::fast::FixedState::with_seed(0)
}

impl<'a> Key<'a> {
    /// None for an Arrow type that no column has.
    pub(super) fn of(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Key::Text(array.as_string()),
            DataType::Int64 => Key::Long(array.as_primitive::<Int64Type>().values(), array.as_ref()),
            DataType::Timestamp(..) => {
                Key::Long(array.as_primitive_opt::<TimestampMillisecondType>()?.values(), array.as_ref())
            }
            DataType::Float64 => Key::Double(array.as_primitive::<Float64Type>().values(), array.as_ref()),
            DataType::Boolean => Key::Boolean(array.as_boolean()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Key::List(list, Box::new(Key::of(list.values())?))
            }
            _ => return None,
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Key::Text(array) => *array,
            Key::Long(_, array) | Key::Double(_, array) => *array,
            Key::Boolean(array) => *array,
            Key::List(array, _) => *array,
        }
    }

    /// Mixes the row's value into `hash`.
    pub(super) fn hash(&self, row: usize, hash: u64) -> u64 {
        let mut state = hasher().build_hasher();
        state.write_u64(hash);
        if self.array().is_null(row) {
            state.write_u8(0);
            return state.finish();
        }
        match self {
            Key::Text(array) => state.write(array.value(row).as_bytes()),
            Key::Long(values, _) => state.write_i64(values[row]),
            Key::Double(values, _) => state.write_u64(values[row].to_bits()),
            Key::Boolean(array) => state.write_u8(1 + u8::from(array.value(row))),
            Key::List(list, values) => {
                let range = range(list, row);
                state.write_usize(range.len());
                let elements = range.fold(1, |hash, element| values.hash(element, hash));
                state.write_u64(elements);
            }
        }
        state.finish()
    }

    pub(super) fn compare(&self, left: usize, right: usize) -> Ordering {
        let array = self.array();
        match (array.is_null(left), array.is_null(right)) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        match self {
            Key::Text(array) => array.value(left).cmp(array.value(right)),
            Key::Long(values, _) => values[left].cmp(&values[right]),
            Key::Double(values, _) => values[left].total_cmp(&values[right]),
            Key::Boolean(array) => array.value(left).cmp(&array.value(right)),
            Key::List(list, values) => {
                let (left, right) = (range(list, left), range(list, right));
                let by_length = left.len().cmp(&right.len());
                let by_element = left.zip(right).map(|(left, right)| values.compare(left, right));
                by_element.into_iter().find(|order| order.is_ne()).unwrap_or(by_length)
            }
        }
    }
}

/// Where a list's elements are.
fn range(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = list.value_offsets();
    let place = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
    place(row)..place(row + 1)
}
