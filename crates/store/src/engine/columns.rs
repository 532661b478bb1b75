//! The columns a query uses, per segment, and what a thread needs to read their blocks.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::EngineError;
use crate::dictionary::{ColumnDictionary, Interner, NULL_ID, TableDictionary, hash_string};
use crate::schema::{ColumnDef, ColumnType, TIME_COLUMN, TableSchema, conform};
use crate::segment::bitmap::{Mask, count, mask_of};
use crate::segment::column::{Column, Data};
use crate::segment::packing::BLOCK_ROWS;
use crate::segment::plain::PlainValues;
use crate::segment::{FormatError, Segment, arrow};
use crate::snapshot::{SnapshotSegment, TableSnapshot};

/// Where a column is among those a query uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotId(pub(super) usize);

/// A column a query uses.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) ty: ColumnType,
    pub(super) text: Option<TextIds>,
}

/// The ids of a text column within one query: those of the table's dictionary, and above them ids of the query's
/// own for strings that only plain columns have.
#[derive(Debug)]
pub(super) struct TextIds {
    pub(super) dictionary: Arc<ColumnDictionary>,
    /// Ids of the dictionary this query can meet are below this.
    pub(super) base: u32,
    /// Some segment keeps the column plain.
    pub(super) has_plain: bool,
    extra: Mutex<Interner>,
}

impl TextIds {
    fn new(dictionary: Arc<ColumnDictionary>, has_plain: bool) -> Self {
        let base = u32::try_from(dictionary.len()).unwrap_or(u32::MAX);
        Self { dictionary, base, has_plain, extra: Mutex::default() }
    }

    /// Ids a group key of this column can have.
    pub(super) fn domain(&self) -> u64 {
        if self.has_plain { 1 << 32 } else { u64::from(self.base) }
    }

    /// The ids of strings of a plain column.
    fn intern<'a>(&self, strings: impl Iterator<Item = Option<&'a str>>, out: &mut [u32]) -> Result<(), EngineError> {
        let known = self.dictionary.strings();
        let mut extra = self.extra.lock().unwrap_or_else(PoisonError::into_inner);
        for (string, id) in strings.zip(out) {
            *id = match string {
                None => NULL_ID,
                Some(string) => {
                    let hash = hash_string(string);
                    match known.find(hash, string).filter(|id| *id < self.base) {
                        Some(id) => id,
                        None => {
                            let own = extra.intern(hash, string).map_err(|full| {
                                EngineError::Unsupported(format!("grouping by so many or so long strings: {full}"))
                            })?;
                            self.base - 1 + own
                        }
                    }
                }
            };
        }
        Ok(())
    }

    /// Calls `sink` with the string of each id in turn.
    pub(super) fn resolve(&self, ids: impl Iterator<Item = u32>, mut sink: impl FnMut(Option<&str>)) {
        let known = self.dictionary.strings();
        let extra = self.extra.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            sink(if id < self.base { known.get(id) } else { extra.get(id - self.base + 1) });
        }
    }

    /// Memory of the query's own strings.
    pub(super) fn size_bytes(&self) -> usize {
        if self.has_plain { self.extra.lock().unwrap_or_else(PoisonError::into_inner).size_bytes() } else { 0 }
    }
}

/// One segment as a query sees it: its columns by slot, `None` where it has none (all null), each of the table's type.
#[derive(Debug)]
pub(super) struct View {
    pub(super) id: String,
    pub(super) segment: Arc<Segment>,
    pub(super) columns: Vec<Option<Arc<Column>>>,
}

impl View {
    pub(super) fn corrupt(&self, error: FormatError) -> EngineError {
        EngineError::Corrupt { segment: self.id.clone(), error }
    }

    pub(super) fn block_rows(&self, block: usize) -> usize {
        self.segment.rows().saturating_sub(block * BLOCK_ROWS).min(BLOCK_ROWS)
    }

    pub(super) fn blocks(&self) -> usize {
        self.segment.rows().div_ceil(BLOCK_ROWS)
    }

    pub(super) fn column(&self, slot: SlotId) -> Option<&Arc<Column>> {
        self.columns.get(slot.0).and_then(Option::as_ref)
    }

    /// The rows of a block where the slot has a value.
    pub(super) fn valid(&self, slot: SlotId, block: usize, scratch: &mut Scratch) -> Mask {
        let Some(column) = self.column(slot) else { return [0; 16] };
        let Data::Codes(_) = &column.data else { return column.valid(block) };
        let mut mask = mask_of(self.block_rows(block));
        let codes = scratch.codes(column, slot, block);
        super::mask::keep(&mut mask, |row| codes[row] != NULL_ID);
        mask
    }
}

/// Collects the columns a query names.
#[derive(Debug)]
pub(super) struct SlotNames<'a> {
    schema: &'a TableSchema,
    names: Vec<ColumnDef>,
}

impl<'a> SlotNames<'a> {
    pub(super) fn new(schema: &'a TableSchema) -> Self {
        Self { schema, names: Vec::new() }
    }

    /// The slot of a column, and its type.
    pub(super) fn slot(&mut self, name: &str) -> Result<(SlotId, ColumnType), EngineError> {
        if let Some(at) = self.names.iter().position(|def| def.name == name) {
            return Ok((SlotId(at), self.names[at].ty));
        }
        let def = self.schema.column(name).ok_or_else(|| EngineError::UnknownColumn(name.to_owned()))?;
        self.names.push(def.clone());
        Ok((SlotId(self.names.len() - 1), def.ty))
    }

    /// Slots and views, for the segments that `keep` keeps. Touches the columns, so that every id a segment has
    /// exists before the query looks at the dictionary's length.
    pub(super) fn open(
        self,
        snapshot: &TableSnapshot,
        keep: impl Fn(&SnapshotSegment, &[ColumnDef]) -> bool,
    ) -> Result<(Vec<Slot>, Vec<Option<View>>), EngineError> {
        let mut views = Vec::with_capacity(snapshot.segments.len());
        for segment in &snapshot.segments {
            let view = || View::open(segment, &self.names, &snapshot.dictionary);
            views.push(if keep(segment, &self.names) { Some(view()?) } else { None });
        }
        let slots = self.names.into_iter().enumerate().map(|(at, def)| {
            let text = matches!(def.ty, ColumnType::String | ColumnType::Json).then(|| {
                let mut columns = views.iter().flatten().filter_map(|view| view.column(SlotId(at)));
                let has_plain = columns.any(|column| matches!(column.data, Data::Plain(_)));
                TextIds::new(snapshot.dictionary.column(&def.name), has_plain)
            });
            Slot { name: Arc::from(def.name), ty: def.ty, text }
        });
        Ok((slots.collect(), views))
    }
}

impl View {
    fn open(from: &SnapshotSegment, names: &[ColumnDef], dictionary: &TableDictionary) -> Result<Self, EngineError> {
        let corrupt = |error| EngineError::Corrupt { segment: from.id.clone(), error };
        let columns = names.iter().map(|def| {
            let Some(column) = from.segment.column(&def.name) else { return Ok(None) };
            column.ready().map_err(corrupt)?;
            let column =
                if column.ty == def.ty { Arc::clone(column) } else { widened(&from.segment, def, dictionary)? };
            match &column.data {
                Data::Codes(codes) if !Arc::ptr_eq(&codes.dictionary, &dictionary.column(&def.name)) => {
                    let what = format!("segment {} has the ids of another dictionary generation", from.id);
                    Err(EngineError::Internal(what))
                }
                _ => Ok(Some(column)),
            }
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Self { id: from.id.clone(), segment: Arc::clone(&from.segment), columns })
    }
}

/// A column that was sealed with a narrower type than the table has by now.
fn widened(segment: &Segment, def: &ColumnDef, dictionary: &TableDictionary) -> Result<Arc<Column>, EngineError> {
    let fault = |error: String| EngineError::Internal(format!("column {:?} as {}: {error}", def.name, def.ty));
    let batch = segment.to_batch(Some(&[TIME_COLUMN, &def.name])).map_err(|error| fault(error.to_string()))?;
    let schema = TableSchema::new(vec![ColumnDef::time(), def.clone()]).map_err(|error| fault(error.to_string()))?;
    let batch = conform(&batch, &schema).map_err(|error| fault(error.to_string()))?;
    let wide = Segment::from_batch(&batch, dictionary).map_err(|error| fault(error.to_string()))?;
    wide.column(&def.name).cloned().ok_or_else(|| fault("not there".to_owned()))
}

/// Rows of a block that are selected.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) mask: Mask,
    pub(super) count: usize,
    /// Every row of the block, so that `rows[i] == i`.
    pub(super) all: bool,
    /// Their places, ascending; the first `count`.
    pub(super) rows: Vec<u16>,
}

impl Selection {
    pub(super) fn new() -> Self {
        Self { mask: [0; 16], count: 0, all: false, rows: Vec::with_capacity(BLOCK_ROWS) }
    }

    pub(super) fn set(&mut self, mask: Mask, block_rows: usize) {
        self.count = count(&mask);
        let was_all = self.all && self.rows.len() == self.count;
        self.all = self.count == block_rows;
        self.mask = mask;
        if !(self.all && was_all) {
            arrow::rows_of(&mask, &mut self.rows);
        }
    }

    pub(super) fn rows(&self) -> &[u16] {
        &self.rows
    }
}

/// Few rows of a block are read one by one, more by unpacking the block.
const SINGLE_ROWS_MAX: usize = 64;

const NO_BLOCK: usize = usize::MAX;

/// One thread's unpacked blocks, by slot, so that a filter and an aggregate unpack a column once.
#[derive(Debug)]
pub(super) struct Scratch {
    slots: Vec<SlotScratch>,
}

#[derive(Debug)]
struct SlotScratch {
    codes_of: usize,
    codes: Box<[u32; BLOCK_ROWS]>,
    longs_of: usize,
    longs: Box<[i64; BLOCK_ROWS]>,
    plain_of: usize,
    plain: PlainValues,
}

impl Scratch {
    pub(super) fn new(slots: usize) -> Self {
        let slot = |_| SlotScratch {
            codes_of: NO_BLOCK,
            codes: Box::new([0; BLOCK_ROWS]),
            longs_of: NO_BLOCK,
            longs: Box::new([0; BLOCK_ROWS]),
            plain_of: NO_BLOCK,
            plain: PlainValues::default(),
        };
        Self { slots: (0..slots).map(slot).collect() }
    }

    /// Forgets what it has: another segment follows.
    pub(super) fn reset(&mut self) {
        for slot in &mut self.slots {
            (slot.codes_of, slot.longs_of, slot.plain_of) = (NO_BLOCK, NO_BLOCK, NO_BLOCK);
        }
    }

    /// The block's codes; of a column without codes, zeros.
    pub(super) fn codes(&mut self, column: &Column, slot: SlotId, block: usize) -> &[u32; BLOCK_ROWS] {
        let own = &mut self.slots[slot.0];
        if own.codes_of != block {
            own.codes_of = block;
            match &column.data {
                Data::Codes(codes) => codes.packing.decode(block, &mut own.codes),
                _ => own.codes.fill(0),
            }
        }
        &own.codes
    }

    /// The block's integers; of a column without, zeros.
    pub(super) fn longs(&mut self, column: &Column, slot: SlotId, block: usize) -> &[i64; BLOCK_ROWS] {
        let own = &mut self.slots[slot.0];
        if own.longs_of != block {
            own.longs_of = block;
            match &column.data {
                Data::Longs(longs) => longs.decode(block, &mut own.longs),
                _ => own.longs.fill(0),
            }
        }
        &own.longs
    }

    /// The block's strings of a plain text column.
    pub(super) fn plain(&mut self, column: &Column, slot: SlotId, block: usize) -> Result<&PlainValues, FormatError> {
        let own = &mut self.slots[slot.0];
        if own.plain_of != block {
            own.plain_of = NO_BLOCK;
            if let Data::Plain(plain) = &column.data {
                plain.decode(block, column.block_rows(block), true, &mut own.plain)?;
            }
            own.plain_of = block;
        }
        Ok(&own.plain)
    }

    /// The ids of the selected rows of a text column, in the order of the selection.
    pub(super) fn ids(
        &mut self,
        view: &View,
        slot: SlotId,
        text: &TextIds,
        block: usize,
        selection: &Selection,
        out: &mut [u32; BLOCK_ROWS],
    ) -> Result<(), EngineError> {
        let rows = selection.rows();
        let Some(column) = view.column(slot) else {
            out[..rows.len()].fill(NULL_ID);
            return Ok(());
        };
        match &column.data {
            Data::Codes(codes) => {
                if rows.len() <= SINGLE_ROWS_MAX && self.slots[slot.0].codes_of != block {
                    let first = block * BLOCK_ROWS;
                    for (id, row) in out.iter_mut().zip(rows) {
                        *id = codes.id(codes.packing.get(first + usize::from(*row)));
                    }
                    return Ok(());
                }
                let values = self.codes(column, slot, block);
                match (codes.ids(), selection.all) {
                    (None, true) => *out = *values,
                    (None, false) => {
                        out.iter_mut().zip(rows).for_each(|(id, row)| *id = values[usize::from(*row)]);
                    }
                    (Some(ids), true) => {
                        let id = |code: u32| ids.get(code as usize).copied().unwrap_or(NULL_ID);
                        out.iter_mut().zip(values).for_each(|(out, code)| *out = id(*code));
                    }
                    (Some(ids), false) => {
                        let id = |code: u32| ids.get(code as usize).copied().unwrap_or(NULL_ID);
                        out.iter_mut().zip(rows).for_each(|(out, row)| *out = id(values[usize::from(*row)]));
                    }
                }
                Ok(())
            }
            Data::Plain(_) => {
                let valid = column.valid(block);
                let plain = self.plain(column, slot, block).map_err(|error| view.corrupt(error))?;
                let value = |row: &u16| {
                    let row = usize::from(*row);
                    super::mask::is_set(&valid, row).then(|| plain.text(row))
                };
                text.intern(rows.iter().map(value), &mut out[..])
            }
            _ => Err(EngineError::Internal(format!("column {:?} is not text", column.name()))),
        }
    }
}
