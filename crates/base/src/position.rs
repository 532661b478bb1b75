//! Where and when: offsets, terms, indexes, timestamps. Plain numbers with their meaning in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! position {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            pub const ZERO: Self = Self(0);

            /// The position `count` further on; saturates at the type's bound.
            #[must_use]
            pub const fn plus(self, count: $inner) -> Self {
                Self(self.0.saturating_add(count))
            }

            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position!(
    /// A record's place in its partition. Signed because the Kafka wire is; never negative inside.
    Offset(i64)
);
position!(
    /// A leadership of a Raft group. On the Kafka wire: the leader epoch.
    Term(u64)
);
position!(
    /// An entry's place in a Raft group's log. The first entry has index 1.
    LogIndex(u64)
);
position!(
    /// Wall-clock milliseconds since 1970-01-01 UTC, as records and columns carry it.
    Timestamp(i64)
);
position!(
    /// Milliseconds of a clock that only goes forward and counts suspend. What deadlines are made of.
    Tick(u64)
);

impl Tick {
    /// Milliseconds from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
