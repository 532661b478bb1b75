//! How many rows a second one core reads: `cargo run --release --example ingest -- FILE.json.gz [SPEC.json]`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool for developers"
)]

use std::io::Read as _;
use std::sync::Arc;
use std::time::Instant;

use base::batch::Codec;
use base::records::{BatchBuilder, decode};
use base::{PartitionIndex, Timestamp};
use store::ingest::Ingestor;
use store::spec::{TableSpec, from_supervisor};

const BATCH_ROWS: usize = 500;
const PASSES: usize = 15;

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("the path of a file of JSON lines");
    let mut text = Vec::new();
    let file = std::fs::File::open(&path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut text).unwrap();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let declared = args.next().map(|path| {
        let json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        from_supervisor(&json).unwrap()
    });
    let batches: Vec<_> = lines
        .chunks(BATCH_ROWS)
        .map(|rows| {
            let mut builder = BatchBuilder::new(Codec::None);
            for row in rows {
                builder.push(Timestamp(0), None, Some(row), &[]);
            }
            decode(&builder.build().unwrap()).unwrap()
        })
        .collect();
    for (name, spec) in [("discovered", Some(TableSpec::discover("t", "t"))), ("declared", declared)] {
        let Some(spec) = spec else { continue };
        let spec = Arc::new(spec);
        let mut best = f64::MAX;
        for _ in 0..PASSES {
            let mut ingestor = Ingestor::new(Arc::clone(&spec), &spec.initial_schema(), PartitionIndex(0));
            let begun = Instant::now();
            let mut rows = 0;
            for batch in &batches {
                // Every batch claims the same offsets; going on is what is measured.
                ingestor.push_batch(Timestamp(0), batch);
                while let Some((taken, _)) = ingestor.take_rows() {
                    rows += taken.num_rows();
                }
            }
            assert_eq!(rows, lines.len());
            best = best.min(begun.elapsed().as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rows, bytes) = (lines.len() as f64 / best, text.len() as f64 / best / 1e6);
        println!("{name}: {rows:.0} rows/s, {bytes:.0} MB/s on one core (best of {PASSES})");
    }
}
