//! One table while it runs: its live rows, its loaded segments, its counters, behind one lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Offset, PartitionIndex, Tick, Timestamp, TopicId, TopicPartition};
use control::{SegmentId, State, Table, TableId, TableMode};
use store::dictionary::TableDictionary;
use store::live::LiveTable;
use store::schema::TableSchema;
use store::seal::{self, LiveStats};
use store::segment::Segment;
use store::snapshot::{SnapshotSegment, TableSnapshot};
use store::spec::{TableSpec, Tuning};
use tokio::sync::{Notify, watch};

use super::status::{DeadLetterSample, IngestCounters, IngestRates, PartitionStatus, TableStatus};
use super::{Deps, freshness, reader};
use crate::node::time;

/// Between looks at whether a seal has ended.
const SEAL_POLL: std::time::Duration = std::time::Duration::from_millis(20);
/// Dead letters shown; the newest stay.
const DEAD_LETTERS_MAX: usize = 100;
/// Windows of the moving averages, as Druid names them, in seconds.
const RATE_WINDOWS: [(&str, f64); 3] = [("1m", 60.0), ("5m", 300.0), ("15m", 900.0)];

/// A published segment that is open here.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub segment: Arc<Segment>,
    pub interval: store::interval::Interval,
    pub rows: u64,
}

/// Where one partition's reading stands.
#[derive(Clone, Debug)]
pub struct PartitionPlace {
    /// First offset that is not queryable yet.
    pub next: Offset,
    pub published: Offset,
    /// When the oldest live row came in.
    pub live_since: Option<Tick>,
    /// Least `__time` among the live rows.
    pub earliest: Option<Timestamp>,
    pub sealing: bool,
    /// Set at the node's start: until `next` is there, the table is behind.
    pub behind_until: Option<Offset>,
    /// This replica takes the rows in from its own log. Otherwise they are borrowed when a query needs them.
    pub keeps: bool,
    /// It has just begun to keep rows: until `next` is there, queries borrow them.
    pub rebuilding: Option<Offset>,
    /// When a query last needed rows that are not kept here.
    pub asked: Option<Tick>,
    /// Until then this replica keeps rows that are not its own to keep: nobody else could be asked.
    pub lonely_until: Option<Tick>,
}

impl PartitionPlace {
    fn at(published: Offset) -> Self {
        Self {
            next: published,
            published,
            live_since: None,
            earliest: None,
            sealing: false,
            behind_until: None,
            keeps: false,
            rebuilding: None,
            asked: None,
            lonely_until: None,
        }
    }

    /// True if what is here of the partition is all that this node knows to be committed, or soon will be.
    pub fn is_whole(&self) -> bool {
        self.keeps && self.rebuilding.is_none()
    }
}

pub(super) struct Core {
    pub schema: Arc<TableSchema>,
    pub live: LiveTable,
    pub segments: BTreeMap<SegmentId, Loaded>,
    /// Open here and not queryable yet: what this node sealed and has not seen published.
    pub sealed: BTreeMap<SegmentId, Loaded>,
    /// Published segments that could not be opened here, with the reason: queries over them must fail.
    pub missing: BTreeMap<SegmentId, String>,
    pub partitions: BTreeMap<PartitionIndex, PartitionPlace>,
    pub counters: IngestCounters,
    pub dead: VecDeque<DeadLetterSample>,
    pub newest: Option<Timestamp>,
    pub trouble: Option<String>,
    /// Why published segments cannot be brought in at the moment.
    pub behind_cause: Option<String>,
    /// The last query could not ask all leaders how far they are.
    pub lags: bool,
    measured: IngestCounters,
    rates: BTreeMap<&'static str, IngestRates>,
}

/// A table that runs on this node.
pub struct TableRuntime {
    pub id: TableId,
    pub name: Arc<str>,
    pub topic: TopicId,
    pub topic_name: String,
    pub spec: Arc<TableSpec>,
    /// As the metadata has it: another text means that the table must begin again.
    pub spec_text: String,
    pub created: Timestamp,
    pub dictionary: Arc<TableDictionary>,
    /// Held by whoever brings what is published into the core.
    pub(super) following: tokio::sync::Mutex<()>,
    /// There may be something new to follow; wakes the table's one follower.
    pub(super) news: Notify,
    /// Held by whoever borrows rows of the partition.
    borrowing: Mutex<BTreeMap<PartitionIndex, Arc<tokio::sync::Mutex<()>>>>,
    /// Changes when rows come in or are published.
    moved: watch::Sender<()>,
    /// Changes when a reader has to look again whether it keeps rows.
    news_for_readers: watch::Sender<()>,
    core: Mutex<Core>,
    /// Partitions that a reader runs for.
    begun: Mutex<BTreeSet<PartitionIndex>>,
    stopped: watch::Sender<bool>,
    paused: watch::Sender<bool>,
    behind: watch::Sender<bool>,
}

impl TableRuntime {
    pub fn new(table: &Table, state: &State) -> Result<Self, String> {
        let spec: TableSpec = serde_json::from_str(&table.spec).map_err(|error| format!("its spec: {error}"))?;
        let schema: TableSchema =
            serde_json::from_str(&table.schema).map_err(|error| format!("its schema: {error}"))?;
        let topic_name = state.topics.get(&table.topic).map_or_else(|| spec.topic.clone(), |topic| topic.name.clone());
        let dictionary = Arc::new(TableDictionary::new());
        let core = Core {
            schema: Arc::new(schema),
            live: LiveTable::new(Arc::clone(&dictionary)),
            segments: BTreeMap::new(),
            sealed: BTreeMap::new(),
            missing: BTreeMap::new(),
            partitions: BTreeMap::new(),
            counters: IngestCounters::default(),
            dead: VecDeque::new(),
            newest: None,
            trouble: None,
            behind_cause: None,
            lags: false,
            measured: IngestCounters::default(),
            rates: RATE_WINDOWS.iter().map(|(name, _)| (*name, IngestRates::default())).collect(),
        };
        Ok(Self {
            id: table.id,
            name: table.name.as_str().into(),
            topic: table.topic,
            topic_name,
            spec: Arc::new(spec),
            spec_text: table.spec.clone(),
            created: table.created,
            dictionary,
            following: tokio::sync::Mutex::default(),
            news: Notify::new(),
            borrowing: Mutex::default(),
            moved: watch::channel(()).0,
            news_for_readers: watch::channel(()).0,
            core: Mutex::new(core),
            begun: Mutex::default(),
            stopped: watch::channel(false).0,
            paused: watch::channel(table.mode == TableMode::Suspended).0,
            behind: watch::channel(false).0,
        })
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn at(&self, partition: PartitionIndex) -> TopicPartition {
        TopicPartition { topic: self.topic, partition }
    }

    /// Makes a place for a partition, and starts reading it if there is a replica of it here and nobody reads it yet.
    pub(super) fn begin_partition(
        self: &Arc<Self>,
        partition: PartitionIndex,
        table: &Table,
        at_start: bool,
        is_hosted: bool,
        deps: &Arc<Deps>,
    ) {
        let published = table.published(partition);
        let is_new = {
            let mut core = self.core();
            let is_new = !core.partitions.contains_key(&partition);
            core.partitions.entry(partition).or_insert_with(|| PartitionPlace::at(published));
            is_new
        };
        if !is_hosted || !self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(partition) {
            return;
        }
        if is_new && self.is_to_keep(partition, deps) {
            let committed = freshness::readable_end(&deps.logs, self.at(partition));
            let behind_until = committed.filter(|committed| at_start && *committed > published && !self.is_paused());
            self.set_keeps(partition, behind_until);
            if at_start && deps.peers.is_some() && !self.is_paused() {
                self.await_leader(partition, behind_until, deps);
            }
        }
        let (table, deps) = (Arc::clone(self), Arc::clone(deps));
        tokio::spawn(async move {
            reader::run(&table, partition, &deps).await;
            table.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
            table.release(partition);
        });
    }

    fn set_keeps(&self, partition: PartitionIndex, behind_until: Option<Offset>) {
        if let Some(place) = self.core().partitions.get_mut(&partition) {
            place.keeps = true;
            place.behind_until = behind_until;
        }
        if behind_until.is_some() {
            self.behind.send_replace(true);
        }
    }

    /// True if this replica is to take the partition's rows in: it leads it, or is among the first of its replicas, or
    /// nobody else can be asked.
    fn is_to_keep(&self, partition: PartitionIndex, deps: &Deps) -> bool {
        let at = self.at(partition);
        if self.is_led(partition, deps) {
            return true;
        }
        let state = deps.meta.state();
        let count = usize::try_from(self.spec.live_replicas).unwrap_or(usize::MAX);
        if state.replicas(at).is_empty() || state.live_keepers(at, count, None).contains(&deps.node) {
            return true;
        }
        let lonely_until = self.core().partitions.get(&partition).and_then(|place| place.lonely_until);
        lonely_until.is_some_and(|until| until > time::now())
    }

    /// Looks whether this replica keeps the partition's rows, and notes it; called by its reader in each round.
    pub(super) fn keeps(&self, partition: PartitionIndex, deps: &Deps) -> bool {
        let keeps = self.is_to_keep(partition, deps);
        let kept = self.core().partitions.get(&partition).is_some_and(|place| place.keeps);
        if keeps && !kept {
            let committed = freshness::readable_end(&deps.logs, self.at(partition));
            if let Some(place) = self.core().partitions.get_mut(&partition) {
                place.keeps = true;
                place.rebuilding = committed.filter(|committed| *committed > place.next);
            }
        } else if kept && !keeps {
            self.release(partition);
        }
        keeps
    }

    /// True if the rows at `next` are published already. They come as segments, not from the log: that may begin behind them.
    pub(super) fn is_published_beyond(&self, partition: PartitionIndex, next: Offset, deps: &Deps) -> bool {
        deps.meta.state().tables.get(&self.id).is_some_and(|known| known.published(partition) > next)
    }

    /// The rows are not kept up any more. They stay for a while: somebody may ask for them.
    fn release(&self, partition: PartitionIndex) {
        let mut core = self.core();
        if let Some(place) = core.partitions.get_mut(&partition) {
            *place = PartitionPlace {
                keeps: false,
                rebuilding: None,
                behind_until: None,
                asked: Some(time::now()),
                ..place.clone()
            };
        }
        let is_behind = core.partitions.values().any(|place| place.behind_until.is_some());
        self.behind.send_replace(is_behind);
    }

    /// This replica keeps the partition's rows for `patience_ms`, whoever should.
    pub(super) fn keep_alone(&self, partition: PartitionIndex, patience_ms: u64) {
        if let Some(place) = self.core().partitions.get_mut(&partition) {
            place.lonely_until = Some(time::now().plus(patience_ms));
        }
        self.wake_readers();
    }

    /// Readers look again whether there is something to do.
    pub(super) fn wake_readers(&self) {
        self.news_for_readers.send_replace(());
    }

    pub(super) fn reader_signal(&self) -> watch::Receiver<()> {
        self.news_for_readers.subscribe()
    }

    /// Rows of partitions that are not kept here go when nobody asked for them for `idle_ms`.
    pub(super) fn forget_borrowed(&self, idle_ms: u64) {
        let now = time::now();
        let mut guard = self.core();
        let core = &mut *guard;
        for (index, place) in &mut core.partitions {
            let is_idle = place.asked.is_none_or(|asked| now.since(asked) >= idle_ms);
            if !place.keeps && is_idle && place.next > place.published {
                core.live.forget(*index);
                *place = PartitionPlace { sealing: place.sealing, ..PartitionPlace::at(place.published) };
            }
        }
    }

    /// Held while rows of the partition are borrowed, so that queries at the same time borrow them once.
    pub(super) fn borrower(&self, partition: PartitionIndex) -> Arc<tokio::sync::Mutex<()>> {
        let mut borrowing = self.borrowing.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(borrowing.entry(partition).or_default())
    }

    /// Changes when rows come in or are published.
    pub(super) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// The partition counts as behind until it has what its leader has committed by now; without a leader, what is known here.
    fn await_leader(self: &Arc<Self>, partition: PartitionIndex, known_here: Option<Offset>, deps: &Arc<Deps>) {
        self.set_behind(partition, |_| Some(Offset(i64::MAX)));
        let (table, deps) = (Arc::clone(self), Arc::clone(deps));
        tokio::spawn(async move {
            let told = freshness::leaders_committed(table.at(partition), &deps).await;
            let until = told.or(known_here);
            table.set_behind(partition, |place| until.filter(|until| *until > place.next));
        });
    }

    fn set_behind(&self, partition: PartitionIndex, until: impl FnOnce(&PartitionPlace) -> Option<Offset>) {
        let mut core = self.core();
        if let Some(place) = core.partitions.get_mut(&partition) {
            place.behind_until = until(place);
        }
        let is_behind = core.partitions.values().any(|place| place.behind_until.is_some());
        self.behind.send_replace(is_behind);
    }

    /// Called after each step of a reader: is the table still behind?
    pub(super) fn note_progress(&self, core: &mut Core, partition: PartitionIndex) {
        self.moved.send_replace(());
        if let Some(place) = core.partitions.get_mut(&partition) {
            place.rebuilding = place.rebuilding.filter(|until| place.next < *until);
        }
        if let Some(place) = core.partitions.get_mut(&partition)
            && place.behind_until.is_some_and(|until| place.next >= until)
        {
            place.behind_until = None;
            if core.partitions.values().all(|place| place.behind_until.is_none()) {
                self.behind.send_replace(false);
            }
        }
    }

    pub fn is_caught_up(&self) -> bool {
        !*self.behind.borrow()
    }

    pub async fn caught_up(&self) {
        drop(self.behind.subscribe().wait_for(|behind| !behind).await);
    }

    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    pub fn set_paused(&self, paused: bool) {
        self.paused.send_if_modified(|before| std::mem::replace(before, paused) != paused);
    }

    pub(super) fn paused_signal(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    pub fn stop(&self) {
        self.stopped.send_replace(true);
        self.moved.send_replace(());
    }

    pub(super) fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stopped.subscribe()
    }

    /// Waits until no partition is being sealed. Sealing ends by itself once the table was stopped.
    pub(super) async fn seals_ended(&self) {
        while self.core().partitions.values().any(|place| place.sealing) {
            tokio::time::sleep(SEAL_POLL).await;
        }
    }

    pub fn live_bytes(&self) -> u64 {
        self.core().live.memory_bytes() as u64
    }

    /// The partition led here with the most live rows that is not being sealed.
    pub(super) fn largest_partition(&self, deps: &Deps) -> Option<(u64, PartitionIndex)> {
        let core = self.core();
        let idle = core.partitions.iter().filter(|(index, place)| !place.sealing && self.is_led(**index, deps));
        idle.map(|(index, _)| (core.live.partition_rows(*index), *index)).filter(|(rows, _)| *rows > 0).max()
    }

    pub(super) fn keep_dead_letter(core: &mut Core, letter: DeadLetterSample) {
        if core.dead.len() == DEAD_LETTERS_MAX {
            core.dead.pop_front();
        }
        core.dead.push_back(letter);
    }

    /// Everything a query needs of the table, at this moment.
    pub fn snapshot(&self) -> TableSnapshot {
        self.snapshot_of(&self.core())
    }

    pub(super) fn snapshot_of(&self, core: &Core) -> TableSnapshot {
        let published = core.segments.iter().map(|(id, loaded)| SnapshotSegment {
            id: id.to_string(),
            interval: loaded.interval,
            rows: loaded.rows,
            segment: Arc::clone(&loaded.segment),
            live: false,
        });
        let live = core.live.snapshot().into_iter().filter_map(|chunk| {
            let (least, greatest) = chunk.segment.time_range()?;
            Some(SnapshotSegment {
                id: format!("live-{}-{}-{}", chunk.partition, chunk.offsets.start, chunk.offsets.end),
                interval: store::interval::Interval {
                    start: Timestamp(least),
                    end: Timestamp(greatest.saturating_add(1)),
                },
                rows: chunk.segment.rows() as u64,
                segment: chunk.segment,
                live: true,
            })
        });
        let segments = published.chain(live).collect();
        TableSnapshot {
            table: Arc::clone(&self.name),
            schema: Arc::clone(&core.schema),
            dictionary: Arc::clone(&self.dictionary),
            segments,
        }
    }

    /// True if everything read of the partitions led here is published.
    pub(super) fn is_sealed(&self, deps: &Deps) -> bool {
        let core = self.core();
        let mut led = core.partitions.iter().filter(|(index, _)| self.is_led(**index, deps));
        led.all(|(_, place)| place.next <= place.published && !place.sealing)
    }

    /// Why the table cannot be queried, if a published segment is not open here.
    pub fn missing(&self) -> Option<String> {
        self.missing_of(&self.core())
    }

    pub(super) fn missing_of(&self, core: &Core) -> Option<String> {
        let (id, cause) = core.missing.first_key_value()?;
        Some(format!("{} segments of table {} are missing; the first is {id}: {cause}", core.missing.len(), self.name))
    }

    /// Why this node alone cannot answer for all of the table's rows.
    pub(super) fn is_partial(&self) -> Option<String> {
        let core = self.core();
        let elsewhere = core.partitions.iter().find(|(_, place)| !place.is_whole());
        elsewhere.map(|(index, _)| format!("the newest rows of table {}, partition {index}, are not here", self.name))
    }

    pub fn status(&self, deps: &Deps) -> TableStatus {
        let core = self.core();
        let partitions = core.partitions.iter().map(|(index, place)| {
            let committed = freshness::readable_end(&deps.logs, self.at(*index)).unwrap_or(place.next);
            // What is not kept here is borrowed as far as it is committed: it does not lag.
            let next = if place.keeps { place.next } else { place.next.max(committed) };
            PartitionStatus { partition: *index, next, published: place.published, committed }
        });
        let state = deps.meta.state();
        let segment_bytes =
            state.tables.get(&self.id).map_or(0, |table| table.segments.values().map(|s| s.size_bytes).sum());
        TableStatus {
            name: self.name.to_string(),
            topic: self.topic_name.clone(),
            spec: (*self.spec).clone(),
            suspended: self.is_paused(),
            created: self.created,
            schema: Arc::clone(&core.schema),
            segments: core.segments.len() + core.missing.len(),
            missing_segments: core.missing.len(),
            segment_rows: core.segments.values().map(|loaded| loaded.rows).sum(),
            segment_bytes,
            live_rows: core.live.rows(),
            live_bytes: core.live.memory_bytes() as u64,
            newest: core.newest,
            partitions: partitions.collect(),
            counters: core.counters,
            rates: core.rates.clone(),
            dead_letters: core.dead.iter().cloned().collect(),
            trouble: core.trouble.clone(),
        }
    }

    /// Moves the averages on; called once a second.
    pub(super) fn measure(&self) {
        let mut core = self.core();
        let (now, before) = (core.counters, core.measured);
        core.measured = now;
        for (name, seconds) in RATE_WINDOWS {
            let keep = (-1.0 / seconds).exp();
            let Some(rates) = core.rates.get_mut(name) else { continue };
            let mix = |old: f64, now: u64, before: u64| old * keep + as_f64(now.saturating_sub(before)) * (1.0 - keep);
            *rates = IngestRates {
                processed: mix(rates.processed, now.rows, before.rows),
                processed_bytes: mix(rates.processed_bytes, now.bytes, before.bytes),
                unparseable: mix(rates.unparseable, now.unparseable, before.unparseable),
                thrown_away: mix(rates.thrown_away, now.thrown_away, before.thrown_away),
            };
        }
    }

    /// Only the leader of a partition seals its rows; the others keep theirs until those are published.
    pub(super) fn is_led(&self, partition: PartitionIndex, deps: &Deps) -> bool {
        deps.logs.leadership(self.at(partition)).is_some_and(|leadership| leadership.borrow().is_mine)
    }

    /// True if this partition should be sealed now.
    pub(super) fn seal_is_due(&self, partition: PartitionIndex, deps: &Deps) -> bool {
        let core = self.core();
        let Some(place) = core.partitions.get(&partition).filter(|place| !place.sealing) else { return false };
        if place.next == place.published || !self.is_led(partition, deps) {
            return false;
        }
        if self.is_paused() {
            // Nothing more comes in: what is there must not wait for more.
            return true;
        }
        let rows = core.live.partition_rows(partition);
        let live = LiveStats {
            rows: rows.max(1),
            bytes: core.live.partition_memory_bytes(partition) as u64,
            oldest: place.live_since,
            earliest_chunk_end: place.earliest.map(|time| self.spec.segment_granularity.bucket(time).end),
        };
        let own = self.spec.tuning;
        let tuning = Tuning {
            rows_per_segment_max: own.rows_per_segment_max.min(deps.config.segment_rows_max),
            live_age_ms_max: own.live_age_ms_max.min(deps.config.segment_age_ms_max),
            ..own
        };
        seal::should_seal(&tuning, &live, time::now(), time::wall()).is_some()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
