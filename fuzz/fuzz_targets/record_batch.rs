//! A record batch from anyone: an error, or exactly as many records as its header says.

#![no_main]

use base::batch::HEADER_BYTES;
use base::checksum::crc32c;
use base::records;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read(Bytes::copy_from_slice(data));
    read(forge(data));
});

fn read(batch: Bytes) {
    for part in base::batch::split(&batch) {
        let Ok((header, bytes)) = part else { break };
        assert_eq!(header.size_bytes, bytes.len());
    }
    let Ok(decoded) = records::decode(&batch) else { return };
    let count = decoded.iter().count();
    let good = decoded.iter().filter(Result::is_ok).count();
    if good == count {
        assert_eq!(i32::try_from(good), Ok(decoded.header().record_count));
    }
    for record in decoded.iter().flatten() {
        assert_eq!(record.headers.iter().count(), record.headers.len());
        assert!(record.offset >= decoded.header().base_offset && record.offset <= decoded.header().last_offset());
    }
}

/// The same bytes as the body of a batch whose header fits: length, magic and checksum are good.
fn forge(data: &[u8]) -> Bytes {
    let [attributes, count, body @ ..] = data else { return Bytes::new() };
    let mut batch = vec![0_u8; HEADER_BYTES];
    batch.extend_from_slice(body);
    let length = i32::try_from(batch.len() - 12).unwrap_or(i32::MAX);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    batch[22] = attributes % 16;
    batch[26] = count.saturating_sub(1);
    batch[60] = (*count).max(1);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}
