//! A drill's record: small, and it says who it is.

use base::batch::Codec;
use base::records::{BatchBuilder, Record};
use base::{ProducerEpoch, ProducerId, Timestamp};
use bytes::Bytes;
use serde_json::Value;

use crate::Failure;

/// Producer and number: no two records have the same.
pub type Id = (u32, u64);

/// Event times begin here and spread over four days, so that several time chunks are met.
const FROM_MS: i64 = 1_767_225_600_000;
const DAY_MS: u64 = 86_400_000;

/// The batch of the numbers `from..from + count`.
pub(super) fn batch(
    producer: u32,
    from: u64,
    count: u32,
    identity: Option<(ProducerId, ProducerEpoch, i32)>,
) -> Result<Bytes, Failure> {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, epoch, sequence)) = identity {
        builder = builder.producer(id, epoch, sequence);
    }
    let key = format!("p{producer}");
    for number in from..from + u64::from(count) {
        let time = FROM_MS + i64::try_from(number % 4 * DAY_MS + number).unwrap_or(0);
        let json = format!(
            r#"{{"__time":{time},"producer":"p{producer}","number":{number},"id":"{producer}-{number}","amount":{}}}"#,
            number % 100
        );
        builder.push(Timestamp(time), Some(key.as_bytes()), Some(json.as_bytes()), &[]);
    }
    builder.build().map_err(|error| error.to_string())
}

/// The id of a record as it was read. `None`: it is not a drill's.
#[must_use]
pub fn id_of(record: &Record<'_>) -> Option<Id> {
    let json: Value = serde_json::from_slice(record.value?).ok()?;
    let (producer, number) = json["id"].as_str()?.split_once('-')?;
    Some((producer.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_who_it_is() {
        let bytes = batch(7, 40, 3, Some((ProducerId(5), ProducerEpoch(0), 40))).unwrap();
        let decoded = base::records::decode(&bytes).unwrap();
        let ids: Vec<Option<Id>> = decoded.iter().map(|record| id_of(&record.unwrap())).collect();
        assert_eq!(ids, [Some((7, 40)), Some((7, 41)), Some((7, 42))]);
        assert_eq!(decoded.header().base_sequence, 40);
    }
}
