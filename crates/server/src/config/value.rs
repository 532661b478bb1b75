//! The kinds of value a key can have: how each is read from text and shown as text. `parse(show(v))` is
//! always `v`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base::NodeId;

/// A number of bytes, written with a unit of 1,024 (`1GiB`) or of 1,000 (`1GB`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// Members of a cluster and where they hear each other. As founders, empty: the node is alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peers(pub BTreeMap<NodeId, SocketAddr>);

/// A kind of value.
pub trait Value: Sized {
    /// What to write, as an error message or the help names it.
    const SHAPE: &'static str;
    /// # Errors
    /// What is wrong with the text, without the key.
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

impl Value for String {
    const SHAPE: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const SHAPE: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("the path is empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for bool {
    const SHAPE: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! number {
    ($($ty:ty),*) => {$(
        impl Value for $ty {
            const SHAPE: &'static str = "a whole number";

            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| {
                    format!("{text:?} is not a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX)
                })
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
number!(u16, u32, u64, i32);

/// An address to listen on: `host:port`, `:port` or `port`; without a host it is loopback.
impl Value for SocketAddr {
    const SHAPE: &'static str = "address:port";

    fn parse(text: &str) -> Result<Self, String> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let wrong = || format!("{text:?} is not an address and a port, such as 127.0.0.1:9092");
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port: u16 = port.parse().map_err(|_| wrong())?;
        match host {
            "" | "localhost" => Ok(Self::new(loopback, port)),
            "*" => Ok(Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
            _ => Err(format!("{} (a name is not accepted here: a listener needs the address itself)", wrong())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Peers {
    const SHAPE: &'static str = "a list such as 1@10.0.0.1:7400,2@10.0.0.2:7400,3@10.0.0.3:7400";

    fn parse(text: &str) -> Result<Self, String> {
        let mut peers = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || format!("{part:?} is not a node's number, @, and its address, such as 1@10.0.0.1:7400");
            let (id, address) = part.split_once('@').ok_or_else(wrong)?;
            let id = id.trim().parse().ok().filter(|id| *id > 0).map(NodeId).ok_or_else(wrong)?;
            let address: SocketAddr = address.trim().parse().map_err(|_| wrong())?;
            if let Some(other) = peers.iter().find(|(_, known)| **known == address).map(|(id, _)| *id) {
                return Err(format!("nodes {other} and {id} have the same address {address}"));
            }
            if peers.insert(id, address).is_some() {
                return Err(format!("node {id} stands in it twice"));
            }
        }
        Ok(Self(peers))
    }

    fn show(&self) -> String {
        self.0.iter().map(|(id, address)| format!("{id}@{address}")).collect::<Vec<_>>().join(",")
    }
}

const TIME_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

impl Value for Duration {
    const SHAPE: &'static str = "a duration such as 500ms, 10s, 5m, 1h or 7d";

    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let Some((_, millis)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("{text:?} is not a duration; write a number and ms, s, m, h or d, such as 10s"));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(*millis))
            .map(Self::from_millis)
            .ok_or_else(|| format!("{text:?} is not a duration; the number before the unit must be whole"))
    }

    fn show(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        show_unit(millis, &TIME_UNITS, "0s")
    }
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

impl Value for ByteSize {
    const SHAPE: &'static str = "a size such as 64KiB, 256MiB or 1GiB";

    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let unit = if unit.is_empty() { "B" } else { unit };
        let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            return Err(format!("{text:?} is not a size; write a number and B, KiB, MiB, GiB or TiB, such as 256MiB"));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(*bytes))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a size; the number before the unit must be whole"))
    }

    fn show(&self) -> String {
        show_unit(self.0, &SIZE_UNITS, "0B")
    }
}

/// A value that may be switched off with `none`.
impl<T: Value> Value for Option<T> {
    const SHAPE: &'static str = T::SHAPE;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" | "unlimited" => Ok(None),
            text => T::parse(text).map(Some).map_err(|error| format!("{error} (or none)")),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// The largest unit that divides `amount`.
fn show_unit(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return zero.to_owned();
    }
    let divides = units.iter().filter(|(_, size)| amount.is_multiple_of(*size)).max_by_key(|(_, size)| *size);
    divides.map_or_else(|| amount.to_string(), |(name, size)| format!("{}{name}", amount / size))
}
