//! Why a group request was refused. The variant says what the member may do next.

/// See each variant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    /// Choose another id.
    #[error("group id is empty or longer than {} bytes", super::limits::GROUP_ID_BYTES_MAX)]
    InvalidGroupId,
    /// Ask for a timeout within the range.
    #[error("session timeout {asked_ms} ms is not within {min_ms} to {max_ms} ms")]
    InvalidSessionTimeout { asked_ms: u64, min_ms: u64, max_ms: u64 },
    /// A name is too long, or a list has too many entries.
    #[error("{what} is larger than {max}")]
    TooLarge { what: &'static str, max: usize },
    /// Offer a protocol the whole group has, or join another group.
    #[error("the group's members have no protocol in common with this one")]
    InconsistentProtocol,
    /// Join again with this member id.
    #[error("join again as member {0}")]
    MemberIdRequired(String),
    /// Join again without a member id.
    #[error("not a member of the group: its session may be over")]
    UnknownMember,
    /// Another process uses this instance id: stop.
    #[error("the instance id belongs to another member by now")]
    FencedInstance,
    /// Join again.
    #[error("generation {asked} is not the group's, which is {current}")]
    IllegalGeneration { asked: i32, current: i32 },
    /// Join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Wait for a member to leave.
    #[error("the group has {0} members, the most allowed")]
    GroupFull(usize),
    /// Retry later: too many groups, offsets or writes.
    #[error("{what} are at their bound of {max}")]
    Busy { what: &'static str, max: usize },
    /// The write failed or took too long; whether it happened is unknown. Retry.
    #[error("the group's records could not be made durable in time")]
    NotPersisted,
    /// There is no coordinator to ask, because its log cannot be read or the node is stopping. Retry.
    #[error("the groups are not available: their log cannot be read, or the node is stopping")]
    NotAvailable,
    /// Another node coordinates: ask who.
    #[error("another node coordinates the groups")]
    NotCoordinator,
    /// This node coordinates since a moment ago and reads what was written before. Retry.
    #[error("the groups are being loaded")]
    Loading,
    /// A newer incarnation of the producer has committed: stop.
    #[error("a newer incarnation of the producer has offsets in this group")]
    FencedProducer,
    /// Ask again whether the transaction is under way.
    #[error("the producer's transaction ended meanwhile")]
    TransactionEnded,
    /// No such group.
    #[error("no such group")]
    NotFound,
    /// Stop its members first.
    #[error("the group has members")]
    NotEmpty,
    /// Stop reading the topic first.
    #[error("members of the group read this topic")]
    SubscribedToTopic,
    /// Commit less metadata.
    #[error("the metadata of an offset is longer than {0} bytes")]
    OffsetMetadataTooLarge(usize),
    /// Offsets are not negative.
    #[error("offset {0} is negative")]
    InvalidOffset(i64),
}
