//! Ports for processes that come and go.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::Failure;

/// Below the range from which systems take the ports of outgoing connections, so that a port is still free when the
/// process that listened on it is started again.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address on loopback that nobody listens on, never the same twice in this process.
///
/// # Errors
/// None is free.
pub fn free_address() -> Result<SocketAddr, Failure> {
    // Drills that run side by side begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(641) % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let at = (u32::from(start) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(at).unwrap_or(0);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(format!("no port from {FIRST} to {} is free", FIRST + COUNT - 1))
}
