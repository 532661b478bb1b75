//! Kafka frames to typed requests, typed responses to frame bytes. A pure codec: no socket, no time, no storage.
//!
//! ```text
//! bytes --frame--> length checked, header --schema--> every length in the body checked --request--> Request
//!                                                                      Response --response--> chunks of bytes
//! ```
//! - [`frame`]: the four-byte length, request header v1 and v2, how long a frame of which API may be
//! - [`api`]: which APIs and versions exist here; the one table that ApiVersions is answered from
//! - [`schema`]: a walk over a request body that proves its lengths before anything is allocated by them
//! - [`request`] and [`response`]: the typed messages. Produce and Fetch are ours, with records passed through as `Bytes`;
//!   the others are `kafka-protocol`'s, re-exported as [`msg`]
//! - [`code`]: Kafka's error codes
//!
//! Duties of the caller: read frames with [`frame::check_length`] and [`frame::check_head`] before buffering them; answer the
//! requests of a connection in order; on any [`frame::FrameError`] close that connection and nothing else.
//!
//! What always holds: no panic and no allocation beyond a small multiple of the frame, whatever the bytes; the record bytes
//! that come in are the record bytes that go on, never decoded or encoded here.

pub mod api;
pub mod code;
pub mod fetch;
pub mod frame;
pub mod hint;
pub mod produce;
pub mod request;
pub mod response;
pub mod schema;
mod wire;

pub use api::ApiKey;
pub use code::ErrorCode;
pub use fetch::{FetchRequest, FetchResponse};
pub use frame::{FrameError, RequestHeader};
pub use hint::{LeaderHint, NodeEndpoint};
pub use kafka_protocol::messages as msg;
pub use kafka_protocol::protocol::StrBytes;
pub use produce::{ProduceRequest, ProduceResponse};
pub use request::{Request, parse};
pub use response::{EncodeError, Response};
