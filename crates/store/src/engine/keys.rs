//! Group keys: from a block's rows to packed numbers, and back to Arrow.
//!
//! Every key column becomes a field of fixed width: a text its id, a long its distance from the least one, a bucket
//! of time its number, and 0 is null. The fields of all keys together are a dense array index when they are few bits,
//! and a hash table's key of one to eight words when they are more.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field};

use super::columns::{Scratch, Selection, Slot, SlotId, SlotNames, View};
use super::error::EngineError;
use super::mask;
use super::query::{Key, KeyKind, LongMap, StringMap, TimeFloor};
use crate::dictionary::{Interner, NULL_ID, hash_string};
use crate::schema::ColumnType;
use crate::segment::bitmap::Mask;
use crate::segment::column::Data;
use crate::segment::packing::BLOCK_ROWS;

/// Most words of a packed key.
pub(super) const KEY_WORDS_MAX: usize = 8;
/// Time is cut into numbered buckets up to this many; beyond, the bucket's start itself is the key.
const BUCKETS_MAX: usize = 1 << 20;

/// One key of the query.
#[derive(Debug)]
pub(super) struct KeyPlan {
    pub(super) name: String,
    slot: SlotId,
    ty: ColumnType,
    source: Source,
    field: Place,
    /// Where the null bit is, when the field has no number to spare for it.
    null: Option<Place>,
}

/// Where a field is in the packed key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Place {
    word: usize,
    shift: u32,
    bits: u32,
}

impl Place {
    fn get(self, key: &[u64]) -> u64 {
        let word = key.get(self.word).copied().unwrap_or(0);
        let mask = if self.bits >= 64 { u64::MAX } else { (1 << self.bits) - 1 };
        word.checked_shr(self.shift).unwrap_or(0) & mask
    }
}

#[derive(Debug)]
enum Source {
    Text,
    TextMap {
        map: StringMap,
        derived: Mutex<Interner>,
    },
    /// Distance from the least, plus one.
    Long {
        min: i64,
    },
    LongRaw,
    LongMap(LongMap),
    /// Starts of the buckets, ascending, and the end of the last.
    Buckets {
        starts: Vec<i64>,
    },
    FloorRaw(TimeFloor),
    Double,
    Boolean,
}

/// The packed keys' layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) words: usize,
    /// Bits of all fields, when they are in one word.
    pub(super) bits: u32,
}

/// What one thread remembers of functions of strings: id -> derived id, `UNKNOWN` until asked.
pub(super) type MapCache = Vec<Vec<u32>>;
const UNKNOWN: u32 = u32::MAX;

fn bits_of(greatest: u64) -> u32 {
    u64::BITS - greatest.leading_zeros()
}

impl KeyPlan {
    /// The column a key is of. To be followed by [`Self::fit`] once the columns are open.
    pub(super) fn plan(key: &Key, names: &mut SlotNames<'_>) -> Result<Self, EngineError> {
        let column = match &key.kind {
            KeyKind::Column(column)
            | KeyKind::TimeFloor { column, .. }
            | KeyKind::StringMap { column, .. }
            | KeyKind::LongMap { column, .. } => column,
        };
        let (slot, ty) = names.slot(column)?;
        let is_long = matches!(ty, ColumnType::Long | ColumnType::Timestamp);
        let is_text = matches!(ty, ColumnType::String | ColumnType::Json);
        let source = match &key.kind {
            KeyKind::Column(_) if is_text => Source::Text,
            KeyKind::Column(_) if is_long => Source::LongRaw,
            KeyKind::Column(_) if ty == ColumnType::Double => Source::Double,
            KeyKind::Column(_) if ty == ColumnType::Boolean => Source::Boolean,
            KeyKind::TimeFloor { floor, .. } if is_long => Source::FloorRaw(floor.clone()),
            KeyKind::StringMap { map, .. } if is_text => {
                Source::TextMap { map: map.clone(), derived: Mutex::default() }
            }
            KeyKind::LongMap { map, .. } if is_long => Source::LongMap(map.clone()),
            _ => return Err(EngineError::Unsupported(format!("a group key of column {column:?} of type {ty}"))),
        };
        let (field, null) = (Place::default(), None);
        Ok(Self { name: key.name.clone(), slot, ty, source, field, null })
    }

    /// Bits of the field, and whether null needs one of its own.
    fn fit(&mut self, slots: &[Slot], views: &[Option<View>], range: Option<(i64, i64)>) -> (u32, bool) {
        let known = long_range(self.slot, views, range);
        match (&mut self.source, known) {
            (Source::Text, _) => {
                let domain = slots[self.slot.0].text.as_ref().map_or(1, super::columns::TextIds::domain);
                (bits_of(domain.saturating_sub(1)).max(1), false)
            }
            (Source::TextMap { .. }, _) => (32, false),
            (Source::LongRaw, Some((min, max))) if max.checked_sub(min).is_some_and(|range| range < i64::MAX) => {
                self.source = Source::Long { min };
                (bits_of(max.wrapping_sub(min).cast_unsigned() + 1), false)
            }
            (Source::FloorRaw(floor), Some((min, max))) => match enumerate(floor, min, max) {
                Some(starts) => {
                    let bits = bits_of(starts.len() as u64);
                    self.source = Source::Buckets { starts };
                    (bits, false)
                }
                None => (64, true),
            },
            (Source::Boolean, _) => (2, false),
            _ => (64, true),
        }
    }

    /// Lays the fields of all keys out. `ranges` are what the filter says of longs.
    pub(super) fn lay_out(
        keys: &mut [Self],
        slots: &[Slot],
        views: &[Option<View>],
        ranges: &[(SlotId, i64, i64)],
    ) -> Result<Layout, EngineError> {
        let mut used = [0_u32; KEY_WORDS_MAX];
        let mut place = |bits: u32| {
            let word = used.iter().position(|used| used + bits <= 64)?;
            let shift = used[word];
            used[word] += bits;
            Some(Place { word, shift, bits })
        };
        let too_long = || EngineError::Unsupported(format!("group keys of more than {KEY_WORDS_MAX} words"));
        for key in keys {
            let of_key = ranges.iter().filter(|(slot, ..)| *slot == key.slot);
            let range = of_key.map(|(_, low, high)| (*low, *high)).reduce(|a, b| (a.0.max(b.0), a.1.min(b.1)));
            let (bits, null) = key.fit(slots, views, range);
            key.field = place(bits).ok_or_else(too_long)?;
            key.null = if null { Some(place(1).ok_or_else(too_long)?) } else { None };
        }
        let words = used.iter().rposition(|used| *used > 0).map_or(1, |last| last + 1);
        Ok(Layout { words, bits: if words == 1 { used[0] } else { u32::MAX } })
    }

    /// True if the key is a text column's id and nothing else.
    pub(super) fn text_slot(&self) -> Option<SlotId> {
        matches!(self.source, Source::Text).then_some(self.slot)
    }

    /// The answer's field.
    pub(super) fn arrow_field(&self) -> Field {
        let ty = match &self.source {
            Source::Text | Source::TextMap { .. } => DataType::Utf8,
            Source::Long { .. } | Source::LongRaw | Source::Double | Source::Boolean => self.ty.arrow(),
            Source::LongMap(_) => DataType::Int64,
            Source::Buckets { .. } | Source::FloorRaw(_) => ColumnType::Timestamp.arrow(),
        };
        Field::new(&self.name, ty, true)
    }

    /// Memory the key's own strings take.
    pub(super) fn size_bytes(&self) -> usize {
        match &self.source {
            Source::TextMap { derived, .. } => derived.lock().unwrap_or_else(PoisonError::into_inner).size_bytes(),
            _ => 0,
        }
    }
}

/// Least and greatest value of a long column over all segments, within what the filter lets through.
fn long_range(slot: SlotId, views: &[Option<View>], range: Option<(i64, i64)>) -> Option<(i64, i64)> {
    let columns = views.iter().flatten().filter_map(|view| view.column(slot));
    let ranges = columns.filter_map(|column| match &column.data {
        Data::Longs(longs) => longs.range(),
        _ => None,
    });
    let (min, max) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    let (low, high) = range.unwrap_or((i64::MIN, i64::MAX));
    let (min, max) = (min.max(low), max.min(high));
    (min <= max).then_some((min, max))
}

/// The starts of the buckets that cover `[min, max]`, then the end of the last.
fn enumerate(floor: &TimeFloor, min: i64, max: i64) -> Option<Vec<i64>> {
    let mut starts = Vec::new();
    let (mut start, mut end) = (floor.0)(min);
    loop {
        starts.push(start);
        if end > max || end <= start {
            starts.push(end);
            return Some(starts);
        }
        if starts.len() >= BUCKETS_MAX {
            return None;
        }
        let at = end;
        (start, end) = (floor.0)(at);
        if start > at || end <= at {
            return None;
        }
    }
}

/// The rows of a block and where their packed keys go.
pub(super) struct KeyBlock<'a> {
    pub(super) view: &'a View,
    pub(super) slots: &'a [Slot],
    pub(super) block: usize,
    pub(super) selection: &'a Selection,
}

impl KeyPlan {
    /// Ors the key's field into each selected row's packed key.
    pub(super) fn pack<const N: usize>(
        &self,
        at: &KeyBlock<'_>,
        scratch: &mut Scratch,
        cache: &mut Vec<u32>,
        out: &mut [[u64; N]],
    ) -> Result<(), EngineError> {
        let rows = at.selection.rows();
        let place = self.field;
        if place.word >= N || self.null.is_some_and(|null| null.word >= N) {
            return Err(EngineError::Internal("a key outside its words".to_owned()));
        }
        match &self.source {
            Source::Text | Source::TextMap { .. } => {
                let mut ids = [0_u32; BLOCK_ROWS];
                let text = at.slots[self.slot.0].text.as_ref();
                let text = text.ok_or_else(|| EngineError::Internal("a text key without ids".to_owned()))?;
                scratch.ids(at.view, self.slot, text, at.block, at.selection, &mut ids)?;
                if let Source::TextMap { map, derived } = &self.source {
                    self.derive(map, derived, text, cache, &mut ids[..rows.len()])?;
                }
                out.iter_mut().zip(&ids).for_each(|(key, id)| key[place.word] |= u64::from(*id) << place.shift);
            }
            Source::Boolean => {
                let Some(column) = at.view.column(self.slot) else { return Ok(()) };
                let Data::Booleans(bits) = &column.data else { return Err(wrong(&self.name)) };
                let (valid, bits) = (column.valid(at.block), bits.block(at.block));
                for (key, row) in out.iter_mut().zip(rows) {
                    let row = usize::from(*row);
                    let value = if mask::is_set(&valid, row) { 1 + u64::from(mask::is_set(&bits, row)) } else { 0 };
                    key[place.word] |= value << place.shift;
                }
            }
            Source::Double => {
                let Some(column) = at.view.column(self.slot) else {
                    self.all_null(out);
                    return Ok(());
                };
                let Data::Doubles(doubles) = &column.data else { return Err(wrong(&self.name)) };
                let valid = column.valid(at.block);
                for (key, row) in out.iter_mut().zip(rows) {
                    let row = usize::from(*row);
                    let value = doubles.get(at.block * BLOCK_ROWS + row).copied().unwrap_or(0.0);
                    let value = if value == 0.0 {
                        0.0
                    } else if value.is_nan() {
                        f64::NAN
                    } else {
                        value
                    };
                    self.put(key, mask::is_set(&valid, row).then_some(value.to_bits()));
                }
            }
            _ => self.pack_longs(at, scratch, out)?,
        }
        Ok(())
    }

    fn all_null<const N: usize>(&self, out: &mut [[u64; N]]) {
        out.iter_mut().for_each(|key| self.put(key, None));
    }

    /// A field with or without a null bit of its own.
    #[inline]
    fn put<const N: usize>(&self, key: &mut [u64; N], value: Option<u64>) {
        match (value, self.null) {
            (Some(value), _) => key[self.field.word] |= value << self.field.shift,
            (None, Some(null)) => key[null.word] |= 1 << null.shift,
            (None, None) => {}
        }
    }

    fn pack_longs<const N: usize>(
        &self,
        at: &KeyBlock<'_>,
        scratch: &mut Scratch,
        out: &mut [[u64; N]],
    ) -> Result<(), EngineError> {
        let Some(column) = at.view.column(self.slot) else {
            self.all_null(out);
            return Ok(());
        };
        let Data::Longs(longs) = &column.data else { return Err(wrong(&self.name)) };
        let zone = longs.blocks.get(at.block).copied();
        if let (Source::Buckets { starts }, Some(zone), 0) = (&self.source, zone, column.nulls)
            && bucket_of(starts, zone.min) == bucket_of(starts, zone.max)
        {
            let value = bucket_of(starts, zone.min);
            out.iter_mut().for_each(|key| key[self.field.word] |= value << self.field.shift);
            return Ok(());
        }
        let valid = if column.nulls == 0 { [u64::MAX; 16] } else { column.valid(at.block) };
        let values = scratch.longs(column, self.slot, at.block);
        let rows = at.selection.rows();
        let each = Rows { key: self, valid: &valid, values, rows };
        match &self.source {
            Source::Long { min } => {
                each.pack(out, |value| Some(value.wrapping_sub(*min).cast_unsigned().wrapping_add(1)));
            }
            Source::LongMap(map) => {
                let mut last = None;
                each.pack(out, |value| match last {
                    Some((of, result)) if of == value => result,
                    _ => {
                        let result = (map.0)(value).map(i64::cast_unsigned);
                        last = Some((value, result));
                        result
                    }
                });
            }
            Source::Buckets { starts } => {
                let (mut from, mut to, mut number) = (0, 0, 0);
                each.pack(out, |value| {
                    if value < from || value >= to {
                        number = bucket_of(starts, value);
                        let at = usize::try_from(number).unwrap_or(1).max(1);
                        (from, to) = (starts[at - 1], starts.get(at).copied().unwrap_or(i64::MAX));
                    }
                    Some(number)
                });
            }
            Source::FloorRaw(floor) => {
                let (mut from, mut to) = (0, 0);
                each.pack(out, |value| {
                    if value < from || value >= to {
                        (from, to) = (floor.0)(value);
                    }
                    Some(from.cast_unsigned())
                });
            }
            _ => each.pack(out, |value| Some(value.cast_unsigned())),
        }
        Ok(())
    }

    /// Ids of strings become ids of what the function makes of them.
    fn derive(
        &self,
        map: &StringMap,
        derived: &Mutex<Interner>,
        text: &super::columns::TextIds,
        cache: &mut Vec<u32>,
        ids: &mut [u32],
    ) -> Result<(), EngineError> {
        for id in ids {
            let at = *id as usize;
            if at >= cache.len() {
                cache.resize(at + 1, UNKNOWN);
            }
            if cache[at] == UNKNOWN {
                let mut result = None;
                text.resolve(std::iter::once(*id), |string| result = (map.0)(string));
                cache[at] = match result {
                    None => NULL_ID,
                    Some(string) => {
                        let mut derived = derived.lock().unwrap_or_else(PoisonError::into_inner);
                        derived
                            .intern(hash_string(&string), &string)
                            .map_err(|full| EngineError::Unsupported(format!("group key {:?}: {full}", self.name)))?
                    }
                };
            }
            *id = cache[at];
        }
        Ok(())
    }
}

/// A block's integers on their way into packed keys.
struct Rows<'a> {
    key: &'a KeyPlan,
    valid: &'a Mask,
    values: &'a [i64; BLOCK_ROWS],
    rows: &'a [u16],
}

impl Rows<'_> {
    #[inline]
    fn pack<const N: usize>(&self, out: &mut [[u64; N]], mut field: impl FnMut(i64) -> Option<u64>) {
        for (key, row) in out.iter_mut().zip(self.rows) {
            let row = usize::from(*row);
            let value = if mask::is_set(self.valid, row) { field(self.values[row]) } else { None };
            self.key.put(key, value);
        }
    }
}

fn wrong(name: &str) -> EngineError {
    EngineError::Internal(format!("group key {name:?} is over a column of another type"))
}

/// The number of a value's bucket, from 1.
fn bucket_of(starts: &[i64], value: i64) -> u64 {
    starts.partition_point(|start| *start <= value).clamp(1, starts.len().max(2) - 1) as u64
}

/// A key column of the answer that can be compared before it is built.
pub(super) enum KeyValues {
    /// `None` is null.
    Numbers(Vec<Option<i64>>),
    Doubles(Vec<Option<f64>>),
    Texts(Vec<Option<Box<str>>>),
}

impl KeyPlan {
    fn value(&self, key: &[u64]) -> Option<u64> {
        let value = self.field.get(key);
        match (&self.source, self.null) {
            (_, Some(null)) => (null.get(key) == 0).then_some(value),
            (Source::Text | Source::TextMap { .. }, None) => Some(value),
            (_, None) => (value > 0).then_some(value),
        }
    }

    /// The values of some packed keys.
    pub(super) fn values(&self, slots: &[Slot], keys: &[&[u64]]) -> KeyValues {
        let numbers = |number: &dyn Fn(u64) -> i64| {
            KeyValues::Numbers(keys.iter().map(|key| self.value(key).map(number)).collect())
        };
        match &self.source {
            Source::Text | Source::TextMap { .. } => {
                let ids = keys.iter().map(|key| u32::try_from(self.field.get(key)).unwrap_or(NULL_ID));
                let mut texts = Vec::with_capacity(keys.len());
                self.resolve(slots, ids, &mut |text| texts.push(text.map(Box::from)));
                KeyValues::Texts(texts)
            }
            Source::Long { min } => numbers(&|value| min.wrapping_add((value - 1).cast_signed())),
            Source::Buckets { starts } => {
                numbers(&|value| usize::try_from(value).ok().and_then(|at| starts.get(at - 1)).copied().unwrap_or(0))
            }
            Source::LongRaw | Source::LongMap(_) | Source::FloorRaw(_) => numbers(&u64::cast_signed),
            Source::Boolean => numbers(&|value| (value - 1).cast_signed()),
            Source::Double => KeyValues::Doubles(keys.iter().map(|key| self.value(key).map(f64::from_bits)).collect()),
        }
    }

    fn resolve(&self, slots: &[Slot], ids: impl Iterator<Item = u32>, sink: &mut dyn FnMut(Option<&str>)) {
        match &self.source {
            Source::TextMap { derived, .. } => {
                let derived = derived.lock().unwrap_or_else(PoisonError::into_inner);
                ids.for_each(|id| sink(derived.get(id)));
            }
            _ => {
                if let Some(text) = &slots[self.slot.0].text {
                    text.resolve(ids, sink);
                }
            }
        }
    }

    /// The column of the answer, for some packed keys.
    pub(super) fn array(&self, slots: &[Slot], keys: &[&[u64]]) -> ArrayRef {
        if let Source::Text | Source::TextMap { .. } = self.source {
            let ids = keys.iter().map(|key| u32::try_from(self.field.get(key)).unwrap_or(NULL_ID));
            let mut out = StringBuilder::with_capacity(keys.len(), keys.len() * 16);
            self.resolve(slots, ids, &mut |text| out.append_option(text));
            return Arc::new(out.finish());
        }
        let array: Arc<dyn Array> = match self.values(slots, keys) {
            KeyValues::Texts(texts) => {
                let mut out = StringBuilder::new();
                texts.iter().for_each(|text| out.append_option(text.as_deref()));
                Arc::new(out.finish())
            }
            KeyValues::Doubles(values) => {
                let mut out = Float64Builder::with_capacity(values.len());
                values.iter().for_each(|value| out.append_option(*value));
                Arc::new(out.finish())
            }
            KeyValues::Numbers(values) => match self.arrow_field().data_type() {
                DataType::Boolean => {
                    let mut out = BooleanBuilder::with_capacity(values.len());
                    values.iter().for_each(|value| out.append_option(value.map(|value| value != 0)));
                    Arc::new(out.finish())
                }
                DataType::Timestamp(..) => {
                    let mut out = TimestampMillisecondBuilder::with_capacity(values.len());
                    values.iter().for_each(|value| out.append_option(*value));
                    Arc::new(out.finish())
                }
                _ => {
                    let mut out = Int64Builder::with_capacity(values.len());
                    values.iter().for_each(|value| out.append_option(*value));
                    Arc::new(out.finish())
                }
            },
        };
        array
    }
}
