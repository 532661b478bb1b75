//! A frame from anyone: it is refused or read, and what was read never claims more than was there.

#![no_main]

use bytes::{BufMut, Bytes, BytesMut};
use kafka::Request;
use kafka::api::APIS;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let frame = match data {
        // Half of the inputs get a header that exists, so that the bodies are reached.
        [api, version, body @ ..] if api & 1 == 1 => {
            let api = &APIS[usize::from(*api >> 1) % APIS.len()];
            let versions = usize::try_from(api.max - api.min).unwrap_or(0) + 1;
            let version = api.min + i16::try_from(usize::from(*version) % versions).unwrap_or(0);
            let mut out = BytesMut::new();
            out.put_i16(api.key.number());
            out.put_i16(version);
            out.put_i32(1);
            out.put_i16(-1);
            if version >= api.flexible_from {
                out.put_u8(0);
            }
            out.put_slice(body);
            out.freeze()
        }
        _ => Bytes::copy_from_slice(data),
    };
    if let Ok((_, Request::Produce(request))) = kafka::parse(&frame) {
        assert!(request.record_bytes() <= frame.len());
    }
});
