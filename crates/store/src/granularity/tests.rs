use super::*;
use crate::calendar::parse_iso;

fn at(text: &str) -> Timestamp {
    parse_iso(text).expect("a time")
}

fn json(text: &str) -> Result<Granularity, serde_json::Error> {
    serde_json::from_str(text)
}

#[test]
fn buckets_start_where_druid_starts_them() {
    let la = r#"{"type":"period","period":"P1D","timeZone":"America/Los_Angeles"}"#;
    let cases = [
        (r#""hour""#, "2015-09-12T12:46:58.771", "2015-09-12T12:00", "2015-09-12T13:00"),
        (r#""DAY""#, "2015-09-12T12:46:58.771", "2015-09-12", "2015-09-13"),
        (r#""fifteen_minute""#, "2015-09-12T12:46:58.771", "2015-09-12T12:45", "2015-09-12T13:00"),
        (r#""six_hour""#, "2015-09-12T12:46:58.771", "2015-09-12T12:00", "2015-09-12T18:00"),
        (r#""week""#, "2015-09-12T12:46:58.771", "2015-09-07", "2015-09-14"),
        (r#""month""#, "2015-09-12", "2015-09-01", "2015-10-01"),
        (r#""quarter""#, "2015-09-12", "2015-07-01", "2015-10-01"),
        (r#""year""#, "2015-09-12", "2015-01-01", "2016-01-01"),
        (r#""year""#, "1969-12-31T23:59:59.999", "1969-01-01", "1970-01-01"),
        (r#""PT5M""#, "2015-09-12T12:46:58.771", "2015-09-12T12:45", "2015-09-12T12:50"),
        (r#""P2W""#, "2015-09-12", "2015-09-10", "2015-09-24"),
        (r#""P7D""#, "2015-09-12", "2015-09-10", "2015-09-17"),
        (r#""P2Y""#, "2015-09-12", "2014-01-01", "2016-01-01"),
        (r#"{"type":"duration","duration":7200000}"#, "2015-09-12T13:00", "2015-09-12T12:00", "2015-09-12T14:00"),
        (
            r#"{"type":"duration","duration":3600000,"origin":"2012-01-01T00:30:00Z"}"#,
            "2015-09-12T13:00",
            "2015-09-12T12:30",
            "2015-09-12T13:30",
        ),
        (r#"{"type":"period","period":"P1M","origin":"2015-01-15"}"#, "2015-09-12", "2015-08-15", "2015-09-15"),
        (la, "2015-09-12T06:59", "2015-09-11T07:00", "2015-09-12T07:00"),
        // The day of the spring clock change has 23 hours, that of autumn 25.
        (la, "2015-03-08T12:00", "2015-03-08T08:00", "2015-03-09T07:00"),
        (la, "2015-11-01T12:00", "2015-11-01T07:00", "2015-11-02T08:00"),
        (
            r#"{"type":"period","period":"PT1H","timeZone":"Asia/Kolkata"}"#,
            "2015-09-12T12:40",
            "2015-09-12T12:30",
            "2015-09-12T13:30",
        ),
        (r#"{"type":"period","period":"P1DT12H"}"#, "1970-01-02T13:00", "1970-01-02T12:00", "1970-01-04"),
        (r#"{"type":"period","period":"P1M1D"}"#, "1970-02-03", "1970-02-02", "1970-03-03"),
    ];
    for (granularity, time, start, end) in cases {
        let granularity = json(granularity).unwrap_or_else(|error| panic!("{granularity}: {error}"));
        let bucket = granularity.bucket(at(time));
        assert_eq!(bucket.to_string(), Interval { start: at(start), end: at(end) }.to_string(), "{granularity}");
        assert_eq!(granularity.floor(bucket.start), bucket.start, "{granularity}: a start is its own floor");
        assert_eq!(granularity.ceil(at(time)), if at(time) == at(start) { at(start) } else { at(end) });
        if let Some((step, origin)) = granularity.fixed() {
            assert_eq!(at(time).0 - (at(time).0 - origin).rem_euclid(step), bucket.start.0, "{granularity}");
        }
    }
}

#[test]
fn none_and_all() {
    assert_eq!(Granularity::None.floor(Timestamp(7)), Timestamp(7));
    assert_eq!(Granularity::None.bucket(Timestamp(7)), Interval { start: Timestamp(7), end: Timestamp(8) });
    assert_eq!(Granularity::All.bucket(Timestamp(7)), Interval::ETERNITY);
}

#[test]
fn buckets_tile_an_interval() {
    let interval: Interval = "2015-03-07/2015-03-10".parse().expect("an interval");
    let zone = Zone::parse("America/Los_Angeles").expect("a zone");
    for period in [Period::DAY, Period::HOUR, Period::of_millis(6 * HOUR_MS)] {
        let granularity = Granularity::period(period, zone, None).expect("a granularity");
        let buckets: Vec<Interval> = granularity.buckets(interval).collect();
        assert!(buckets[0].start <= interval.start && buckets[buckets.len() - 1].end >= interval.end);
        for pair in buckets.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "{granularity}");
        }
        for bucket in buckets {
            assert_eq!(granularity.floor(bucket.start), bucket.start, "{granularity}");
            assert_eq!(granularity.floor(Timestamp(bucket.end.0 - 1)), bucket.start, "{granularity} {bucket}");
        }
    }
}

#[test]
fn periods_go_there_and_back() {
    for text in ["P1Y", "P3M", "P1W", "P7D", "P1Y2M3DT4H5M6S", "PT0.250S", "PT1M", "P2W"] {
        let period: Period = text.parse().expect("a period");
        assert_eq!(period.to_string(), text);
        assert_eq!(period.to_string().parse(), Ok(period));
    }
    assert_eq!("P12M".parse(), Ok(Period::YEAR));
    for bad in [
        "",
        "P",
        "PT",
        "1D",
        "P1",
        "P1S",
        "PT1D",
        "P1D1",
        "PT1.5H",
        "P-",
        "P1DT",
        "P99999999999999999999D",
        "P1M-1D",
        "é",
    ] {
        assert!(bad.parse::<Period>().is_err(), "{bad}");
    }
    let shifted = Period::MONTH.shift(at("2015-01-31"), Zone::Utc, 1);
    assert_eq!(shifted, at("2015-02-28"));
}

#[test]
fn json_goes_there_and_back() {
    for text in [
        r#""none""#,
        r#""all""#,
        r#""day""#,
        r#""PT7M""#,
        r#"{"type":"period","period":"P1D","timeZone":"Asia/Seoul","origin":"2012-01-01"}"#,
    ] {
        let granularity = json(text).expect("a granularity");
        let back = serde_json::to_string(&granularity).expect("JSON");
        assert_eq!(json(&back).expect("a granularity"), granularity, "{back}");
    }
    for bad in [
        r#""fortnight""#,
        r#"{"type":"period"}"#,
        r#"{"type":"period","period":"PT0S"}"#,
        r#"{"type":"period","period":"-P1D"}"#,
        "1",
        "null",
    ] {
        assert!(json(bad).is_err(), "{bad}");
    }
    let error = json(r#"{"type":"period","period":"P1D","timeZone":"Mars/Olympus"}"#).expect_err("no such zone");
    assert!(error.to_string().contains("Mars/Olympus"), "{error}");
}

#[test]
fn no_time_makes_it_panic() {
    let zones = [Zone::Utc, Zone::Fixed(-3_600), Zone::parse("Asia/Seoul").expect("a zone")];
    let periods =
        ["PT1S", "PT7H", "P1D", "P3D", "P1W", "P1M", "P7M", "P1Y", "P1DT1H", "P1M1D", "P1000000000Y", "P9999999999D"];
    for zone in zones {
        for period in periods {
            for origin in [None, Some(Timestamp(i64::MIN / 2)), Some(Timestamp(i64::MAX / 2))] {
                let granularity =
                    Granularity::period(period.parse().expect("a period"), zone, origin).expect("a granularity");
                for time in [i64::MIN, i64::MIN / 2, -1, 0, 1, i64::MAX / 2, i64::MAX] {
                    let _ =
                        (granularity.bucket(Timestamp(time)), granularity.ceil(Timestamp(time)), granularity.fixed());
                }
            }
        }
    }
}
