//! A catalog of tables in memory, and answers as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType};
use futures::StreamExt;
use query::{
    Catalog, Dialect, QueryError, QueryLimits, QueryRequest, QueryService, QueryStream, SegmentRow, ServerRow,
};
use store::calendar::{Zone, format_iso_in};
use store::dictionary::TableDictionary;
use store::interval::Interval;
use store::schema::TableSchema;
use store::segment::Segment;
use store::snapshot::{SnapshotSegment, TableSnapshot};

/// One segment of a table.
pub enum Part {
    /// A column file.
    File(Bytes),
    /// Rows in memory.
    Live(RecordBatch),
}

/// Tables by name.
#[derive(Default)]
pub struct MemoryCatalog {
    tables: BTreeMap<String, TableSnapshot>,
}

impl MemoryCatalog {
    /// Adds a table of the given batches, one live segment each.
    pub fn add(&mut self, name: &str, schema: TableSchema, batches: &[RecordBatch]) {
        self.add_parts(name, schema, batches.iter().cloned().map(Part::Live).collect());
    }

    /// Adds a table of the given parts.
    pub fn add_parts(&mut self, name: &str, schema: TableSchema, parts: Vec<Part>) {
        let dictionary = Arc::new(TableDictionary::default());
        let segments = parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| {
                let live = matches!(part, Part::Live(_));
                let segment = match part {
                    Part::Live(rows) => Segment::from_batch(&rows, &dictionary).unwrap(),
                    Part::File(bytes) => Segment::open(bytes, &dictionary).unwrap(),
                };
                let rows = segment.rows() as u64;
                SnapshotSegment {
                    id: format!("{name}_{at}"),
                    interval: Interval::ETERNITY,
                    rows,
                    segment: Arc::new(segment),
                    live,
                }
            })
            .collect();
        let table: Arc<str> = name.into();
        let snapshot = TableSnapshot { table, schema: Arc::new(schema), dictionary, segments };
        self.tables.insert(name.to_owned(), snapshot);
    }

    /// The same table under a second name.
    pub fn alias(&mut self, name: &str, of: &str) {
        let mut snapshot = self.tables[of].clone();
        snapshot.table = name.into();
        self.tables.insert(name.to_owned(), snapshot);
    }

    pub fn service(self) -> QueryService {
        QueryService::new(Arc::new(self), QueryLimits::default())
    }
}

impl Catalog for MemoryCatalog {
    fn tables(&self) -> Vec<Arc<str>> {
        self.tables.keys().map(|name| name.as_str().into()).collect()
    }

    fn snapshot(&self, table: &str) -> Option<TableSnapshot> {
        self.tables.get(table).cloned()
    }

    fn segments(&self) -> Vec<SegmentRow> {
        self.tables
            .values()
            .flat_map(|table| {
                table.segments.iter().map(|segment| SegmentRow {
                    segment_id: segment.id.clone(),
                    table: Arc::clone(&table.table),
                    start: Timestamp(0),
                    end: Timestamp(86_400_000),
                    size_bytes: 1000,
                    version: "v1".into(),
                    partition_num: 0,
                    replicas: 1,
                    rows: segment.rows,
                    is_published: true,
                    is_available: true,
                    is_realtime: false,
                    is_overshadowed: false,
                })
            })
            .collect()
    }

    fn servers(&self) -> Vec<ServerRow> {
        vec![ServerRow {
            server: "localhost:8888".into(),
            host: "localhost".into(),
            plaintext_port: 8888,
            tls_port: -1,
            server_type: "historical".into(),
            tier: Some("_default_tier".into()),
            current_size_bytes: 1000,
            max_size_bytes: 1_000_000,
            is_leader: None,
            start_time: Timestamp(0),
            version: "0.1.0".into(),
        }]
    }
}

pub fn request(sql: &str, dialect: Dialect) -> QueryRequest {
    QueryRequest { sql: sql.into(), dialect, identity: "tester".into(), ..QueryRequest::default() }
}

/// A whole answer: names, and cells as text (`None` is NULL).
pub struct Answer {
    pub names: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
    pub stream: Option<QueryStream>,
}

pub async fn ask(service: &QueryService, request: QueryRequest) -> Result<Answer, QueryError> {
    let mut stream = service.run(request).await?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|column| cell(column, row, stream.time_zone)).collect());
        }
    }
    let names = stream.columns.iter().map(|column| column.name.clone()).collect();
    Ok(Answer { names, rows, stream: Some(stream) })
}

fn cell(column: &ArrayRef, row: usize, zone: Zone) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Timestamp(..) => {
            format_iso_in(Timestamp(column.as_primitive::<TimestampMillisecondType>().value(row)), zone)
        }
        DataType::Date32 => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            format_iso_in(Timestamp(days * 86_400_000), Zone::Utc)[..10].to_owned()
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<String> =
                (0..items.len()).map(|at| cell(&items, at, zone).unwrap_or_else(|| "null".into())).collect();
            format!("[{}]", items.join(", "))
        }
        other => panic!("{other} is no outgoing type"),
    })
}
