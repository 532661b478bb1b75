//! Moments as text: ISO-8601 with milliseconds and `Z` or an offset, as Druid spells them, written without an
//! allocation because every row of most answers has one.

use store::calendar::{Civil, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Zone};

/// Appends `2015-09-12T00:46:58.771Z`, or with the zone's offset instead of `Z`.
pub fn write_iso_millis(out: &mut Vec<u8>, millis: i64, zone: Zone) {
    let offset_ms = zone.offset_ms(millis);
    let local = millis.saturating_add(offset_ms);
    write_date(out, local.div_euclid(DAY_MS));
    out.push(b'T');
    write_clock(out, local.rem_euclid(DAY_MS));
    out.push(b'.');
    write_padded(out, local.rem_euclid(SECOND_MS), 3);
    if offset_ms == 0 {
        out.push(b'Z');
    } else {
        let minutes = offset_ms.abs() / MINUTE_MS;
        out.push(if offset_ms < 0 { b'-' } else { b'+' });
        write_padded(out, minutes / 60, 2);
        out.push(b':');
        write_padded(out, minutes % 60, 2);
    }
}

/// Appends `2015-09-12` of a day counted from 1970-01-01. A year before 0 has a minus; one after 9999 has more digits.
pub fn write_date(out: &mut Vec<u8>, days: i64) {
    let date = Civil::from_days(days);
    if date.year < 0 {
        out.push(b'-');
    }
    write_padded(out, date.year.saturating_abs(), 4);
    out.push(b'-');
    write_padded(out, i64::from(date.month), 2);
    out.push(b'-');
    write_padded(out, i64::from(date.day), 2);
}

/// Appends `00:46:58` of the milliseconds since midnight.
pub fn write_clock(out: &mut Vec<u8>, of_day: i64) {
    write_padded(out, of_day / HOUR_MS, 2);
    out.push(b':');
    write_padded(out, of_day / MINUTE_MS % 60, 2);
    out.push(b':');
    write_padded(out, of_day / SECOND_MS % 60, 2);
}

/// Appends a number that is not negative with at least `width` digits.
pub fn write_padded(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = value.unsigned_abs();
    let mut start = digits.len();
    while rest > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Timestamp;
    use store::calendar::format_iso_in;

    fn iso(millis: i64, zone: &str) -> String {
        let mut out = Vec::new();
        write_iso_millis(&mut out, millis, Zone::parse(zone).expect("zone"));
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn moments_are_spelled_as_druid_does() {
        assert_eq!(iso(1_442_018_818_771, "UTC"), "2015-09-12T00:46:58.771Z");
        assert_eq!(iso(1_442_018_818_771, "America/Los_Angeles"), "2015-09-11T17:46:58.771-07:00");
        assert_eq!(iso(1_442_018_818_771, "Asia/Seoul"), "2015-09-12T09:46:58.771+09:00");
        assert_eq!(iso(1_442_018_818_771, "+05:30"), "2015-09-12T06:16:58.771+05:30");
        assert_eq!(iso(-1, "Z"), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso(-4_611_686_018_427_387_904, "Z"), "-146136543-09-08T08:23:32.096Z");
        assert_eq!(iso(4_611_686_018_427_387_903, "Z"), "146140482-04-24T15:36:27.903Z");
    }

    #[test]
    fn the_store_spells_moments_the_same() {
        for zone in ["Z", "Asia/Seoul", "-23:59"] {
            for millis in [i64::MIN, -62_167_219_200_001, -1, 0, 951_782_400_000, i64::MAX] {
                let expected = format_iso_in(Timestamp(millis), Zone::parse(zone).expect("zone"));
                assert_eq!(iso(millis, zone), expected);
            }
        }
    }
}
