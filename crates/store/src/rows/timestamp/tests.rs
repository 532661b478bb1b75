use super::*;
use crate::calendar::format_iso;

fn read(format: &str, text: &str) -> String {
    let format: TimestampFormat = format.parse().expect("the format compiles");
    format.read_text(text).map_or_else(|| "-".to_owned(), format_iso)
}

#[test]
fn formats_read_what_druid_reads() {
    let cases = [
        ("auto", "2009-02-13T23:31:30Z", "2009-02-13T23:31:30.000Z"),
        ("auto", "\"2009-02-13T23:31:30Z\"", "2009-02-13T23:31:30.000Z"),
        ("auto", "1234567890000", "2009-02-13T23:31:30.000Z"),
        ("auto", "2009-02-13 23:31:30", "2009-02-13T23:31:30.000Z"),
        ("auto", "2009-02-13 23:31:30-08:00", "2009-02-14T07:31:30.000Z"),
        ("auto", "2009-02-13 23:31:30 -0800", "2009-02-14T07:31:30.000Z"),
        ("auto", "2009-02-13 23:31:30 PST", "2009-02-14T07:31:30.000Z"),
        ("auto", "2009-02-13 23:31:30 America/Los_Angeles", "2009-02-14T07:31:30.000Z"),
        ("auto", "2009-02-13 23:31:30 Mars/Olympus", "-"),
        ("auto", "2009-02-13", "2009-02-13T00:00:00.000Z"),
        ("auto", "", "-"),
        ("auto", "asdf", "-"),
        ("iso", "2015-09-12T00:46:58.771Z", "2015-09-12T00:46:58.771Z"),
        ("iso", "2015-09-12T00:46:58.771999Z", "2015-09-12T00:46:58.771Z"),
        ("posix", "1442018818", "2015-09-12T00:46:58.000Z"),
        ("ruby", "1358347307.435447", "2013-01-16T14:41:47.435Z"),
        ("micro", "1442018818771000", "2015-09-12T00:46:58.771Z"),
        ("nano", "1442018818771000999", "2015-09-12T00:46:58.771Z"),
        ("millis", "-1", "1969-12-31T23:59:59.999Z"),
        ("millis", "2015-09-12", "-"),
    ];
    for (format, text, expected) in cases {
        assert_eq!(read(format, text), expected, "{format} {text}");
    }
}

#[test]
fn joda_patterns() {
    let cases = [
        ("MM/dd/yyyy", "09/12/2015", "2015-09-12T00:00:00.000Z"),
        ("MM/dd/yyyy", "9/2/2015", "2015-09-02T00:00:00.000Z"),
        ("M/d/yy", "9/2/15", "2015-09-02T00:00:00.000Z"),
        ("M/d/yy", "9/2/80", "1980-09-02T00:00:00.000Z"),
        ("yyyyMMddHHmmssSSS", "20150912004658771", "2015-09-12T00:46:58.771Z"),
        ("yyyy-MM-dd HH:mm:ss.SSS", "2015-09-12 00:46:58.771", "2015-09-12T00:46:58.771Z"),
        ("yyyy-MM-dd'T'HH:mm:ssZ", "2015-09-12T00:46:58+0900", "2015-09-11T15:46:58.000Z"),
        ("yyyy-MM-dd'T'HH:mm:ssZZ", "2015-09-12T00:46:58+09:00", "2015-09-11T15:46:58.000Z"),
        ("yyyy-MM-dd HH:mm ZZZ", "2015-09-12 00:46 Asia/Seoul", "2015-09-11T15:46:00.000Z"),
        ("EEE MMM dd HH:mm:ss z yyyy", "Sat Sep 12 00:46:58 UTC 2015", "2015-09-12T00:46:58.000Z"),
        ("EEEE, d MMMM yyyy h:mm a", "Saturday, 2 September 2015 12:05 am", "2015-09-02T00:05:00.000Z"),
        ("d MMM yyyy hh 'o''clock' a", "2 Sep 2015 11 o'clock PM", "2015-09-02T23:00:00.000Z"),
        ("yyyy D", "2016 366", "2016-12-31T00:00:00.000Z"),
        ("yyyy D", "2015 366", "-"),
        ("yyyy-MM-dd", "2015-02-29", "-"),
        ("yyyy-MM-dd", "2015-02-2x", "-"),
        ("yyyy-MM-dd", "2015-02-20 ", "-"),
        ("HH:mm", "24:00", "-"),
        ("HH:mm", "é", "-"),
    ];
    for (format, text, expected) in cases {
        assert_eq!(read(format, text), expected, "{format} {text}");
    }
    for bad in ["", "yyyy-MM-dd'T", "qqqq", "'just text'", "EEE", "w"] {
        assert!(bad.parse::<TimestampFormat>().is_err(), "{bad}");
    }
}

#[test]
fn numbers_fit_patterns_by_their_digits() {
    let format: TimestampFormat = "yyyyMMdd".parse().expect("compiles");
    assert_eq!(format.read_long(20_150_912).map(format_iso).as_deref(), Some("2015-09-12T00:00:00.000Z"));
    assert_eq!(TimestampFormat::Posix.read_double(1.5), Some(Timestamp(1_500)));
    assert_eq!(TimestampFormat::Auto.read_double(f64::NAN), None);
    assert_eq!(TimestampFormat::Posix.read_long(i64::MAX), None);
}
