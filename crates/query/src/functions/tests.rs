//! Patterns both ways, and units of time at the edges of years.

use store::calendar::Zone;

use super::joda::{Pattern, PatternError};
use super::time::{Unit, week_day, week_of};

const DAY: i64 = 86_400_000;
/// 2015-09-12T13:14:15.016Z, a Saturday.
const TIME: i64 = 1_442_063_655_016;

fn write(pattern: &str, zone: &str) -> String {
    let mut out = String::new();
    Pattern::parse(pattern).unwrap().write(TIME, Zone::parse(zone).unwrap(), &mut out);
    out
}

#[test]
fn patterns_write() {
    for (pattern, zone, text) in [
        ("yyyy-MM-dd'T'HH:mm:ss.SSSZZ", "UTC", "2015-09-12T13:14:15.016+00:00"),
        ("yy/M/d H:m:s", "Asia/Seoul", "15/9/12 22:14:15"),
        ("EEEE MMMM, EEE MMM", "UTC", "Saturday September, Sat Sep"),
        ("hh a, K k", "UTC", "01 PM, 1 13"),
        ("D e w xxxx", "UTC", "255 6 37 2015"),
        ("'it''s' yyyy", "UTC", "it's 2015"),
        ("Z z", "America/Los_Angeles", "-0700 America/Los_Angeles"),
    ] {
        assert_eq!(write(pattern, zone), text, "{pattern}");
    }
    assert_eq!(Pattern::parse("yyyy q"), Err(PatternError::Letter('q')));
    assert_eq!(Pattern::parse("yyyy 'x"), Err(PatternError::Quote));
    assert_eq!(Pattern::parse(&"y".repeat(33)), Err(PatternError::Width('y')));
}

#[test]
fn patterns_read() {
    let read = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().read(text, Zone::Utc);
    assert_eq!(read("yyyy-MM-dd HH:mm:ss.SSS", "2015-09-12 13:14:15.016"), Some(TIME));
    assert_eq!(read("yyyyMMddHHmmss", "20150912131415"), Some(TIME - 16));
    assert_eq!(read("d MMM yyyy h:mm a", "12 sep 2015 1:14 PM"), Some(TIME - 15_016));
    assert_eq!(read("yyyy-MM-dd'T'HH:mm:ssZ", "2015-09-12T22:14:15+09:00"), Some(TIME - 16));
    for (pattern, text) in [
        ("yyyy-MM-dd", "2015-13-01"),
        ("yyyy-MM-dd", "2015-02-29"),
        ("yyyy-MM-dd", "2015-09-12x"),
        ("HH:mm", "24:00"),
        ("yyyy", ""),
        ("yyyy", "99999999999999999999"),
        ("MMM", "Foo"),
        ("Z", "nowhere"),
    ] {
        assert_eq!(read(pattern, text), None, "{pattern} {text}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let pattern = Pattern::parse("yyyy-MM-dd HH:mm:ss.SSS ZZ").unwrap();
    let zone = Zone::parse("Asia/Seoul").unwrap();
    for step in 0..2_000 {
        let time = -15_000 * DAY + step * 1_592_000_123;
        let mut text = String::new();
        pattern.write(time, zone, &mut text);
        assert_eq!(pattern.read(&text, Zone::Utc), Some(time), "{text}");
    }
}

#[test]
fn weeks_follow_iso() {
    // 2016-01-01 was a Friday of week 53 of 2015; 2018-12-31 a Monday of week 1 of 2019.
    assert_eq!((week_day(16_801), week_of(16_801)), (5, (2015, 53)));
    assert_eq!((week_day(17_896), week_of(17_896)), (1, (2019, 1)));
    assert_eq!(week_day(0), 4);
}

#[test]
fn units_hold_before_1970_and_in_zones() {
    let extract =
        |name: &str, time: i64, zone: &str| Unit::parse(name).unwrap().extract(time, Zone::parse(zone).unwrap());
    assert_eq!(extract("year", -1, "UTC"), 1969);
    assert_eq!(extract("MILLISECOND", -1, "UTC"), 999);
    assert_eq!(extract("hour", 0, "Asia/Seoul"), 9);
    assert_eq!(extract("EPOCH", -1, "UTC"), -1);
    assert_eq!(extract("quarter", TIME, "UTC"), 3);
    assert_eq!((extract("century", TIME, "UTC"), extract("millennium", TIME, "UTC")), (21, 3));
    assert_eq!(Unit::parse("fortnight"), None);
}
