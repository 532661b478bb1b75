//! The walk and the generated decoders must see the same bytes the same way; and no bytes may make either allocate much.

#![expect(unsafe_code, reason = "an allocator that remembers the largest allocation of a thread")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Field, Kind};
use crate::api::{APIS, Api, ApiKey};
use crate::{Request, msg, parse};

struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn largest_allocation(work: impl FnOnce()) -> usize {
    LARGEST.with(|largest| largest.set(0));
    work();
    LARGEST.with(Cell::get)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound
    }
}

/// Writes a valid body for a table, with as many surprises as the types allow.
struct Maker<'a> {
    out: BytesMut,
    random: &'a mut Random,
    version: i16,
    flexible: bool,
}

impl Maker<'_> {
    fn structure(&mut self, fields: &[Field]) {
        for field in fields {
            if (field.since..=field.until).contains(&self.version) {
                self.field(field.kind);
            }
        }
        if self.flexible {
            self.out.put_u8(0);
        }
    }

    fn field(&mut self, kind: Kind) {
        match kind {
            Kind::Fixed(bytes) => self.fixed(bytes),
            Kind::Text => {
                let length = self.random.below(200);
                self.length(length, 2);
                self.text(length);
            }
            Kind::Bytes => {
                let length = self.random.below(200);
                self.length(length, 4);
                self.text(length);
            }
            Kind::Numbers(bytes) => self.list(|maker| maker.fixed(bytes)),
            Kind::Texts => self.list(|maker| maker.field(Kind::Text)),
            Kind::Structs(fields) => self.list(|maker| maker.structure(fields)),
            Kind::Maybe(fields) => {
                let is_there = self.random.below(2) == 0;
                self.out.put_i8(if is_there { 1 } else { -1 });
                if is_there {
                    self.structure(fields);
                }
            }
        }
    }

    fn list(&mut self, mut element: impl FnMut(&mut Self)) {
        let count = 1 + self.random.below(3);
        self.length(count, 4);
        for _ in 0..count {
            element(self);
        }
    }

    /// One byte may be a boolean, so it is 0 or 1; others are anything.
    fn fixed(&mut self, bytes: usize) {
        for _ in 0..bytes {
            let bound = if bytes == 1 { 2 } else { 256 };
            let byte = self.random.below(bound);
            self.out.put_u8(u8::try_from(byte).unwrap());
        }
    }

    fn text(&mut self, length: usize) {
        for _ in 0..length {
            let letter = self.random.below(26);
            self.out.put_u8(b'a' + u8::try_from(letter).unwrap());
        }
    }

    fn length(&mut self, length: usize, width: usize) {
        match (self.flexible, width) {
            (true, _) => {
                let mut value = length + 1;
                while value >= 0x80 {
                    self.out.put_u8(u8::try_from(value & 0x7f).unwrap() | 0x80);
                    value >>= 7;
                }
                self.out.put_u8(u8::try_from(value).unwrap());
            }
            (false, 2) => self.out.put_i16(i16::try_from(length).unwrap()),
            (false, _) => self.out.put_i32(i32::try_from(length).unwrap()),
        }
    }
}

fn head(api: &Api, version: i16) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(api.key.number());
    out.put_i16(version);
    out.put_i32(77);
    out.put_i16(4);
    out.put_slice(b"test");
    if version >= api.flexible_from {
        out.put_u8(0);
    }
    out
}

/// A frame by our table, and where its body starts.
fn frame(api: &Api, version: i16, random: &mut Random) -> (Bytes, usize) {
    let out = head(api, version);
    let start = out.len();
    let mut maker = Maker { out, random, version, flexible: version >= api.flexible_from };
    match api.key {
        ApiKey::Produce | ApiKey::Fetch => return (sample_by_generated_code(api, version), start),
        _ => maker.structure(api.body),
    }
    (maker.out.freeze(), start)
}

/// Produce and Fetch are read by hand; their samples come from the generated encoder.
fn sample_by_generated_code(api: &Api, version: i16) -> Bytes {
    let mut out = head(api, version);
    match api.key {
        ApiKey::Produce => produce_sample().encode(&mut out, version.max(3)).unwrap(),
        _ => fetch_sample(version).encode(&mut out, version).unwrap(),
    }
    let bytes = out.freeze();
    if api.key == ApiKey::Produce && version < 3 {
        let start = head(api, version).len();
        return [&bytes[..start], &bytes[start + 2..]].concat().into();
    }
    bytes
}

fn name(text: &'static str) -> msg::TopicName {
    msg::TopicName(StrBytes::from_static_str(text))
}

fn produce_sample() -> msg::ProduceRequest {
    use msg::produce_request::{PartitionProduceData, TopicProduceData};
    let full =
        PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from_static(b"these are records")));
    let empty = PartitionProduceData::default().with_index(4).with_records(None);
    let topic = TopicProduceData::default().with_name(name("events")).with_partition_data(vec![full, empty]);
    msg::ProduceRequest::default().with_acks(-1).with_timeout_ms(1500).with_topic_data(vec![topic.clone(), topic])
}

fn fetch_sample(version: i16) -> msg::FetchRequest {
    use msg::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
    let mut partition =
        FetchPartition::default().with_partition(2).with_fetch_offset(99).with_partition_max_bytes(1 << 20);
    if version >= 9 {
        partition = partition.with_current_leader_epoch(6);
    }
    let mut topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
    if version >= 13 {
        topic.topic_id = uuid::Uuid::from_u128(12);
        forgotten.topic_id = uuid::Uuid::from_u128(13);
    } else {
        topic.topic = name("events");
        forgotten.topic = name("old");
    }
    let mut request = msg::FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_isolation_level(1)
        .with_topics(vec![topic]);
    if version >= 7 {
        request = request.with_session_id(0).with_session_epoch(-1).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        request.rack_id = StrBytes::from_static_str("rack");
    }
    request
}

fn every_version(mut work: impl FnMut(&'static Api, i16)) {
    for api in APIS {
        for version in api.min..=api.max {
            work(api, version);
        }
    }
}

#[test]
fn the_table_and_the_decoders_agree_in_every_version() {
    let mut random = Random(42);
    every_version(|api, version| {
        for _ in 0..20 {
            let (frame, start) = frame(api, version, &mut random);
            let (header, request) =
                parse(&frame).unwrap_or_else(|error| panic!("{} v{version}: {error}", api.key.name()));
            assert_eq!((header.api, header.version, header.correlation_id), (api.key, version, 77));
            assert_eq!(header.client_id.as_deref(), Some("test"));
            if let Some(again) = encode(&request, version) {
                assert_eq!(again, frame[start..], "{} v{version} does not come back the same", api.key.name());
            }
        }
    });
}

/// A request's body as the generated code writes it.
fn encode(request: &Request, version: i16) -> Option<Bytes> {
    macro_rules! each {
        ($($name:ident),*) => {
            match request {
                $(Request::$name(message) => {
                    let mut out = BytesMut::new();
                    message.encode(&mut out, version).unwrap();
                    Some(out.freeze())
                })*
                Request::Produce(_) | Request::Fetch(_) | Request::ApiVersionsOfUnknownVersion => None,
            }
        };
    }
    each!(
        ListOffsets,
        Metadata,
        OffsetCommit,
        OffsetFetch,
        FindCoordinator,
        JoinGroup,
        Heartbeat,
        LeaveGroup,
        SyncGroup,
        DescribeGroups,
        ListGroups,
        ApiVersions,
        CreateTopics,
        DeleteTopics,
        DeleteRecords,
        InitProducerId,
        OffsetForLeaderEpoch,
        DescribeConfigs,
        AlterConfigs,
        DescribeLogDirs,
        CreatePartitions,
        DeleteGroups,
        ElectLeaders,
        IncrementalAlterConfigs,
        AlterPartitionReassignments,
        ListPartitionReassignments,
        OffsetDelete,
        DescribeCluster,
        DescribeProducers,
        AddPartitionsToTxn,
        AddOffsetsToTxn,
        EndTxn,
        TxnOffsetCommit,
        DescribeTransactions,
        ListTransactions,
        DescribeTopicPartitions
    )
}

#[test]
fn produce_and_fetch_are_read_as_the_generated_code_writes_them() {
    every_version(|api, version| match api.key {
        ApiKey::Produce => {
            let (_, request) = parse(&sample_by_generated_code(api, version)).unwrap();
            let Request::Produce(request) = request else { panic!("not a produce request") };
            assert_eq!((request.acks, request.timeout_ms, request.topics.len()), (-1, 1500, 2));
            let topic = &request.topics[1];
            assert_eq!((topic.name.as_str(), topic.partitions.len()), ("events", 2));
            assert_eq!(topic.partitions[0].records.as_deref(), Some(&b"these are records"[..]));
            assert_eq!((topic.partitions[1].index, topic.partitions[1].records.as_ref()), (4, None));
            assert_eq!(request.record_bytes(), 34);
        }
        ApiKey::Fetch => {
            let (_, request) = parse(&sample_by_generated_code(api, version)).unwrap();
            let Request::Fetch(request) = request else { panic!("not a fetch request") };
            assert_eq!((request.max_wait_ms, request.min_bytes, request.max_bytes), (500, 1, 50 << 20));
            assert!(request.read_committed);
            let partition = &request.topics[0].partitions[1];
            assert_eq!((partition.index, partition.fetch_offset, partition.max_bytes), (2, 99, 1 << 20));
            assert_eq!(partition.current_leader_epoch, if version >= 9 { 6 } else { -1 });
        }
        _ => {}
    });
}

#[test]
fn a_cut_frame_is_refused_at_every_byte() {
    let mut random = Random(7);
    every_version(|api, version| {
        let (frame, start) = frame(api, version, &mut random);
        for cut in 0..frame.len() {
            let refused = parse(&frame.slice(..cut)).is_err();
            assert!(refused, "{} v{version} accepted {cut} of {} bytes (body at {start})", api.key.name(), frame.len());
        }
        let longer = [&frame[..], &[0]].concat();
        assert!(parse(&longer.into()).is_ok(), "{} v{version} refused a byte after the body", api.key.name());
    });
}

#[test]
fn hostile_frames_allocate_little() {
    let mut random = Random(99);
    every_version(|api, version| {
        for _ in 0..200 {
            let (frame, _) = frame(api, version, &mut random);
            let mut bytes = frame.to_vec();
            for _ in 0..=random.below(4) {
                let at = 8 + random.below(bytes.len() - 8);
                let hostile: &[u8] = match random.below(4) {
                    0 => &[0x7f, 0xff, 0xff, 0xff],
                    1 => &[0xff, 0xff, 0xff, 0xff, 0x0f],
                    2 => &[0xff, 0xff, 0xff, 0xff, 0x07],
                    _ => &[0x80],
                };
                let end = (at + hostile.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&hostile[..end - at]);
            }
            let size = bytes.len();
            let bytes = Bytes::from(bytes);
            let largest = largest_allocation(|| drop(parse(&bytes)));
            assert!(
                largest <= 65536 + 64 * size,
                "{} v{version}: {size} bytes made it allocate {largest}",
                api.key.name()
            );
        }
    });
}

/// The request of trap 1: thirty bytes that claim two billion topics.
#[test]
fn a_claim_of_two_billion_topics_is_refused_before_anything_is_allocated() {
    let mut out = head(ApiKey::Metadata.api(), 8);
    out.put_i32(i32::MAX);
    out.put_slice(&[0; 3]);
    let bytes = out.freeze();
    let largest = largest_allocation(|| {
        let error = parse(&bytes).unwrap_err().to_string();
        assert_eq!(error, "a count or length that does not fit the bytes that are left at byte 18 of the frame");
    });
    assert!(largest < 4096, "{largest}");
}

#[test]
fn more_elements_than_the_bound_are_refused() {
    let mut out = head(ApiKey::Metadata.api(), 1);
    let count = super::ELEMENTS_MAX + 1;
    out.put_i32(i32::try_from(count).unwrap());
    out.put_bytes(0, 2 * count);
    assert!(parse(&out.freeze()).unwrap_err().to_string().contains("more than 200000"));
}

#[test]
fn every_response_can_be_written_in_every_version() {
    use crate::{RequestHeader, Response};
    every_version(|api, version| {
        macro_rules! default_of {
            ($($name:ident($message:ty)),*) => {
                match api.key {
                    ApiKey::Produce => Response::Produce(crate::ProduceResponse::default()),
                    ApiKey::Fetch => Response::Fetch(crate::FetchResponse {
                        throttle_time_ms: 0, error: crate::ErrorCode::None, topics: vec![], endpoints: vec![],
                    }),
                    $(ApiKey::$name => Response::$name(<$message>::default())),*
                }
            };
        }
        let response = default_of!(
            ListOffsets(msg::ListOffsetsResponse),
            Metadata(msg::MetadataResponse),
            OffsetCommit(msg::OffsetCommitResponse),
            OffsetFetch(msg::OffsetFetchResponse),
            FindCoordinator(msg::FindCoordinatorResponse),
            JoinGroup(msg::JoinGroupResponse),
            Heartbeat(msg::HeartbeatResponse),
            LeaveGroup(msg::LeaveGroupResponse),
            SyncGroup(msg::SyncGroupResponse),
            DescribeGroups(msg::DescribeGroupsResponse),
            ListGroups(msg::ListGroupsResponse),
            ApiVersions(msg::ApiVersionsResponse),
            CreateTopics(msg::CreateTopicsResponse),
            DeleteTopics(msg::DeleteTopicsResponse),
            DeleteRecords(msg::DeleteRecordsResponse),
            InitProducerId(msg::InitProducerIdResponse),
            OffsetForLeaderEpoch(msg::OffsetForLeaderEpochResponse),
            DescribeConfigs(msg::DescribeConfigsResponse),
            AlterConfigs(msg::AlterConfigsResponse),
            DescribeLogDirs(msg::DescribeLogDirsResponse),
            CreatePartitions(msg::CreatePartitionsResponse),
            DeleteGroups(msg::DeleteGroupsResponse),
            ElectLeaders(msg::ElectLeadersResponse),
            IncrementalAlterConfigs(msg::IncrementalAlterConfigsResponse),
            AlterPartitionReassignments(msg::AlterPartitionReassignmentsResponse),
            ListPartitionReassignments(msg::ListPartitionReassignmentsResponse),
            OffsetDelete(msg::OffsetDeleteResponse),
            DescribeCluster(msg::DescribeClusterResponse),
            DescribeProducers(msg::DescribeProducersResponse),
            AddPartitionsToTxn(msg::AddPartitionsToTxnResponse),
            AddOffsetsToTxn(msg::AddOffsetsToTxnResponse),
            EndTxn(msg::EndTxnResponse),
            TxnOffsetCommit(msg::TxnOffsetCommitResponse),
            DescribeTransactions(msg::DescribeTransactionsResponse),
            ListTransactions(msg::ListTransactionsResponse),
            DescribeTopicPartitions(msg::DescribeTopicPartitionsResponse)
        );
        let header = RequestHeader { api: api.key, version, correlation_id: 5, client_id: None };
        let chunks = response.encode(&header).unwrap();
        let bytes = chunks.concat();
        assert_eq!(usize::try_from(i32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap(), bytes.len() - 4);
        assert_eq!(bytes[4..8], 5_i32.to_be_bytes());
    });
}
