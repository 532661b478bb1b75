use super::*;

fn iso_utc(text: &str) -> String {
    parse_iso(text).map_or_else(|_| "-".to_owned(), format_iso)
}

#[test]
fn iso_reads_what_joda_reads() {
    let cases = [
        ("2015", "2015-01-01T00:00:00.000Z"),
        ("2015-09", "2015-09-01T00:00:00.000Z"),
        ("2015-9-2", "2015-09-02T00:00:00.000Z"),
        ("2015-09-12", "2015-09-12T00:00:00.000Z"),
        ("2015-255", "2015-09-12T00:00:00.000Z"),
        ("2015-W37-6", "2015-09-12T00:00:00.000Z"),
        ("2015-W01", "2014-12-29T00:00:00.000Z"),
        ("2015-09-12T00", "2015-09-12T00:00:00.000Z"),
        ("2015-09-12T00:46", "2015-09-12T00:46:00.000Z"),
        ("2015-09-12T00:46:58.771Z", "2015-09-12T00:46:58.771Z"),
        ("2015-09-12 00:46:58", "2015-09-12T00:46:58.000Z"),
        ("2015-09-12T00:46:58.7", "2015-09-12T00:46:58.700Z"),
        ("2015-09-12T00:46:58,771123456789", "2015-09-12T00:46:58.771Z"),
        ("2015-09-12T00.5", "2015-09-12T00:30:00.000Z"),
        ("2015-09-12T24:00", "2015-09-13T00:00:00.000Z"),
        ("2015-09-12T09:00+09:00", "2015-09-12T00:00:00.000Z"),
        ("2015-09-12T09:00+0900", "2015-09-12T00:00:00.000Z"),
        ("2015-09-12T09:00:00 UTC", "2015-09-12T09:00:00.000Z"),
        ("2016-02-29", "2016-02-29T00:00:00.000Z"),
        ("-0001-01-01", "-0001-01-01T00:00:00.000Z"),
        ("0000-01-01", "0000-01-01T00:00:00.000Z"),
        ("146140482-04-24T15:36:27.903Z", "146140482-04-24T15:36:27.903Z"),
        ("2015-02-29", "-"),
        ("2015-13-01", "-"),
        ("2015-00-01", "-"),
        ("2015-09-31", "-"),
        ("2015-366", "-"),
        ("2015-09-12T", "-"),
        ("2015-09-12T25", "-"),
        ("2015-09-12T24:01", "-"),
        ("2015-09-12T00:60", "-"),
        ("2015-09-12T00:00:00.", "-"),
        ("2015-09-12T00:00:00+99", "-"),
        ("2015-09-12x", "-"),
        ("15-09-12", "-"),
        ("", "-"),
        ("é015", "-"),
        ("99999999999-01-01", "-"),
    ];
    for (text, expected) in cases {
        assert_eq!(iso_utc(text), expected, "{text}");
    }
}

#[test]
fn civil_dates_go_there_and_back() {
    for days in (-800_000..800_000).step_by(37) {
        let date = Civil::from_days(days);
        assert_eq!(date.days(), days, "{date:?}");
        assert!((1..=days_in_month(date.year, date.month)).contains(&date.day), "{date:?}");
    }
    assert_eq!(Civil::from_days(0), Civil { year: 1970, month: 1, day: 1 });
    assert_eq!(Civil { year: 2016, month: 1, day: 31 }.plus_months(1), Civil { year: 2016, month: 2, day: 29 });
    assert_eq!(Civil { year: 2016, month: 1, day: 31 }.plus_months(-2), Civil { year: 2015, month: 11, day: 30 });
    for extreme in [i64::MIN, i64::MAX] {
        let _ = Civil::from_days(extreme);
        let _ = Civil { year: extreme, month: 12, day: 31 }.millis();
    }
}

#[test]
fn zones_know_their_clock_changes() {
    let zone = Zone::parse("America/Los_Angeles").expect("a zone");
    let at = |text: &str| parse_iso(text).expect("a time").0;
    // 2015-03-08T02:00 local did not exist; 2015-11-01T01:30 was there twice.
    assert_eq!(zone.to_utc(at("2015-03-08T02:30")), at("2015-03-08T10:30"));
    assert_eq!(zone.to_utc(at("2015-11-01T01:30")), at("2015-11-01T08:30"));
    assert_eq!(zone.offset_ms(at("2015-07-01")), -7 * HOUR_MS);
    assert_eq!(format_iso_in(Timestamp(at("2015-09-12T00:46:58.771")), zone), "2015-09-11T17:46:58.771-07:00");
    for extreme in [i64::MIN, i64::MAX] {
        let _ = (zone.to_utc(extreme), zone.to_local(extreme), format_iso_in(Timestamp(extreme), zone));
    }
}

#[test]
fn zones_have_names_and_offsets() {
    for (text, expected) in [
        ("UTC", "UTC"),
        ("+09:00", "+09:00"),
        ("-0330", "-03:30"),
        ("+9", "+09:00"),
        ("Asia/Seoul", "Asia/Seoul"),
        ("+00:00", "UTC"),
    ] {
        assert_eq!(Zone::parse(text).map(|zone| zone.to_string()), Ok(expected.to_owned()));
    }
    for bad in ["Mars/Olympus", "", "+", "+25:00", "09:00", "+09:00x"] {
        assert!(Zone::parse(bad).is_err(), "{bad}");
    }
}
