use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use super::*;

/// A server that sends back what it gets, and its address.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = reader.read(&mut buffer) {
                    if writer.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, text: &[u8]) -> Duration {
    let begun = Instant::now();
    stream.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
    begun.elapsed()
}

/// Bytes are counted after they were passed on.
fn await_counts(links: &Links, wanted: (u64, u64)) {
    let counted = || (links.forwarded_bytes(1, 2), links.forwarded_bytes(2, 1));
    let begun = Instant::now();
    while counted() != wanted && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(counted(), wanted);
}

fn hears_nothing(stream: &mut TcpStream, patience: Duration) {
    stream.set_read_timeout(Some(patience)).unwrap();
    let failure = stream.read(&mut [0; 16]).unwrap_err();
    assert!(matches!(failure.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{failure}");
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}

#[test]
fn a_whole_link_carries_bytes_both_ways() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    round_trip(&mut dial(address), b"hello");
    await_counts(&links, (5, 5));
}

#[test]
fn a_cut_link_is_silent_and_gives_all_after_the_heal() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    let mut stream = dial(address);
    round_trip(&mut stream, b"before");
    links.cut(1, 2);
    stream.write_all(b"during").unwrap();
    hears_nothing(&mut stream, Duration::from_millis(100));
    assert_eq!(links.forwarded_bytes(1, 2), 6);
    links.heal(1, 2);
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"during");
}

#[test]
fn one_direction_is_cut_and_the_other_is_not() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    let mut stream = dial(address);
    round_trip(&mut stream, b"x");
    links.cut_one_way(2, 1);
    stream.write_all(b"there").unwrap();
    hears_nothing(&mut stream, Duration::from_millis(100));
    await_counts(&links, (6, 1));
    links.heal_all();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
}

#[test]
fn a_connection_dialled_over_a_cut_link_hangs_until_the_heal() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    links.cut_one_way(2, 1);
    let mut stream = dial(address);
    stream.write_all(b"x").unwrap();
    hears_nothing(&mut stream, Duration::from_millis(100));
    assert_eq!(links.forwarded_bytes(1, 2), 0, "not even the handshake has passed");
    links.heal(1, 2);
    stream.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn an_end_does_not_cross_a_cut_wire() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut links = Links::new();
    let address = links.open(1, 2, listener.local_addr().unwrap()).unwrap();
    let mut stream = dial(address);
    let (mut far, _) = listener.accept().unwrap();
    stream.write_all(b"x").unwrap();
    far.read_exact(&mut [0; 1]).unwrap();
    links.cut(1, 2);
    drop(far);
    hears_nothing(&mut stream, Duration::from_millis(100));
    links.heal(1, 2);
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "now it has ended");
}

#[test]
fn a_delayed_wire_is_late_and_not_slow() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    let mut stream = dial(address);
    round_trip(&mut stream, b"x");
    links.delay(1, 2, Duration::from_millis(60));
    links.delay(2, 1, Duration::from_millis(60));
    let begun = Instant::now();
    for _ in 0..20 {
        stream.write_all(b"0123456789").unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    stream.read_exact(&mut [0; 200]).unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(120), "{took:?}");
    assert!(took < Duration::from_millis(1_000), "twenty writes do not wait one after another: {took:?}");
}

#[test]
fn a_slow_wire_keeps_to_its_rate() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    let mut stream = dial(address);
    links.slow(1, 2, 100_000);
    let begun = Instant::now();
    round_trip(&mut stream, &[7; 20_000]);
    round_trip(&mut stream, b"x");
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
}

#[test]
fn nobody_there_is_a_closed_connection() {
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut links = Links::new();
    let address = links.open(1, 2, unused).unwrap();
    let mut stream = dial(address);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn dropping_the_links_ends_every_connection_even_a_cut_one() {
    let mut links = Links::new();
    let address = links.open(1, 2, echo()).unwrap();
    let mut whole = dial(address);
    round_trip(&mut whole, b"x");
    links.cut(1, 2);
    let mut hanging = dial(address);
    std::thread::sleep(Duration::from_millis(30));
    drop(links);
    for stream in [&mut whole, &mut hanging] {
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert!(TcpStream::connect(address).is_err());
}
