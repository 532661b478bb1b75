use super::*;

#[test]
fn intervals_read_and_print_as_druid_has_them() {
    let cases = [
        ("2015-09-12/2015-09-13", "2015-09-12T00:00:00.000Z/2015-09-13T00:00:00.000Z"),
        ("2015-09-12/P1D", "2015-09-12T00:00:00.000Z/2015-09-13T00:00:00.000Z"),
        ("P1M/2015-10-01", "2015-09-01T00:00:00.000Z/2015-10-01T00:00:00.000Z"),
        ("2015-09-12T09:00+09:00/PT1H", "2015-09-12T00:00:00.000Z/2015-09-12T01:00:00.000Z"),
    ];
    for (text, expected) in cases {
        assert_eq!(Interval::parse(text).map(|interval| interval.to_string()), Ok(expected.to_owned()));
    }
    for bad in ["", "2015", "2015/2014", "2015/", "/2015", "P1D/P1D", "2015/P"] {
        assert!(Interval::parse(bad).is_err(), "{bad}");
    }
    let eternity = "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z";
    assert_eq!(Interval::ETERNITY.to_string(), eternity);
    assert_eq!(Interval::parse(eternity), Ok(Interval::ETERNITY));
}

#[test]
fn intervals_touch_without_overlapping() {
    let of = |start, end| Interval::new(Timestamp(start), Timestamp(end)).expect("in order");
    assert!(!of(0, 10).overlaps(&of(10, 20)));
    assert!(of(0, 11).overlaps(&of(10, 20)));
    assert_eq!(of(0, 11).intersection(&of(10, 20)), Some(of(10, 11)));
    assert_eq!(of(0, 10).intersection(&of(10, 20)), None);
    assert!(of(0, 10).covers(&of(0, 10)) && !of(0, 10).covers(&of(0, 11)));
    assert!(of(0, 10).contains(Timestamp(0)) && !of(0, 10).contains(Timestamp(10)));
    assert_eq!(Interval::new(Timestamp(1), Timestamp(0)), None);
}
