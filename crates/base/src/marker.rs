//! The end of a transaction in a partition, as Kafka writes it: a control batch of one record.
//!
//! ```text
//! batch    attributes 0x30 (transactional, control), base sequence -1, the producer's id and epoch
//! key      i16 version = 0, i16 type: 0 abort, 1 commit
//! value    i16 version = 0, i32 coordinator epoch
//! ```

use bytes::{BufMut, Bytes};

use crate::batch::BatchHeader;
use crate::records::{self, BatchBuilder, RecordError};
use crate::{ProducerEpoch, ProducerId, Timestamp};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a marker says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndMarker {
    pub producer: ProducerId,
    /// From here on a lower one is fenced in the partition.
    pub epoch: ProducerEpoch,
    /// False: aborted.
    pub commit: bool,
    /// The leadership of the coordinator that decided.
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// The batch, to be given an offset.
    ///
    /// # Errors
    /// None that can happen: the batch is small.
    pub fn encode(&self, wall: Timestamp) -> Result<Bytes, RecordError> {
        let mut key = Vec::with_capacity(4);
        key.put_i16(VERSION);
        key.put_i16(if self.commit { COMMIT } else { ABORT });
        let mut value = Vec::with_capacity(6);
        value.put_i16(VERSION);
        value.put_i32(self.coordinator_epoch);
        let mut batch = BatchBuilder::control(self.producer, self.epoch);
        batch.push(wall, Some(&key), Some(&value), &[]);
        batch.build()
    }

    /// Reads a control batch. `None` if it is no end of a transaction, or of a version not known here.
    #[must_use]
    pub fn decode(header: &BatchHeader, batch: &[u8]) -> Option<Self> {
        if !header.is_control() {
            return None;
        }
        let decoded = records::decode(batch).ok()?;
        let record = decoded.iter().next()?.ok()?;
        let number = |bytes: &[u8], at: usize| Some(i16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let (key, value) = (record.key?, record.value?);
        let commit = match number(key, 2)? {
            ABORT => false,
            COMMIT => true,
            _ => return None,
        };
        let coordinator_epoch = i32::from_be_bytes(*value.get(2..)?.first_chunk()?);
        let known = number(key, 0)? >= VERSION && number(value, 0)? >= VERSION;
        known.then_some(Self { producer: header.producer_id, epoch: header.producer_epoch, commit, coordinator_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_has_the_bytes_kafka_writes() {
        let marker =
            EndMarker { producer: ProducerId(0x0102), epoch: ProducerEpoch(3), commit: true, coordinator_epoch: 7 };
        let bytes = marker.encode(Timestamp(1000)).unwrap();
        assert_eq!(bytes.len(), 78);
        assert_eq!(bytes[8..12], 66_i32.to_be_bytes());
        assert_eq!(bytes[21..23], [0, 0x30]);
        assert_eq!(bytes[23..27], [0; 4]);
        assert_eq!((&bytes[27..35], &bytes[35..43]), (&1000_i64.to_be_bytes()[..], &1000_i64.to_be_bytes()[..]));
        assert_eq!(bytes[43..53], [0, 0, 0, 0, 0, 0, 1, 2, 0, 3]);
        assert_eq!(bytes[53..57], (-1_i32).to_be_bytes());
        assert_eq!(bytes[57..61], [0, 0, 0, 1]);
        // length 16, attributes, two deltas, key of 4, value of 6, no headers; lengths are zigzag varints.
        assert_eq!(bytes[61..], [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 7, 0]);
        let header = BatchHeader::check(&bytes).unwrap();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!(EndMarker::decode(&header, &bytes), Some(marker));
    }

    #[test]
    fn what_is_no_marker_is_none() {
        let abort =
            EndMarker { producer: ProducerId(1), epoch: ProducerEpoch(0), commit: false, coordinator_epoch: -1 };
        let bytes = abort.encode(Timestamp(0)).unwrap();
        let header = BatchHeader::check(&bytes).unwrap();
        assert_eq!(EndMarker::decode(&header, &bytes), Some(abort));
        let mut data = BatchBuilder::new(crate::batch::Codec::None);
        data.push(Timestamp(0), Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]);
        let bytes = data.build().unwrap();
        assert_eq!(EndMarker::decode(&BatchHeader::check(&bytes).unwrap(), &bytes), None);
        for (key, value) in [(&[0_u8, 0, 0, 2][..], &[0_u8; 6][..]), (&[0, 0, 0], &[0; 6]), (&[0, 0, 0, 1], &[0; 5])] {
            let mut control = BatchBuilder::control(ProducerId(1), ProducerEpoch(0));
            control.push(Timestamp(0), Some(key), Some(value), &[]);
            let bytes = control.build().unwrap();
            assert_eq!(EndMarker::decode(&BatchHeader::check(&bytes).unwrap(), &bytes), None);
        }
    }
}
