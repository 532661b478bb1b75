//! Which topics a member of a consumer group reads, from the metadata its assignor was given.
//!
//! Clients agree on this layout among themselves (protocol type `consumer`): `i16` version, `i32` topics, each an `i16` length and
//! UTF-8 bytes; what follows is not needed here. Metadata that does not look like it says nothing.

/// Protocol type of groups whose metadata can be read.
pub const CONSUMER: &str = "consumer";

/// True if `metadata` names `topic`.
pub fn names(metadata: &[u8], topic: &str) -> bool {
    let Some((_, rest)) = metadata.split_at_checked(2) else { return false };
    let Some((count, mut rest)) = rest.split_first_chunk::<4>() else { return false };
    for _ in 0..i32::from_be_bytes(*count) {
        let Some((len, after)) = rest.split_first_chunk::<2>() else { return false };
        let Ok(len) = usize::try_from(i16::from_be_bytes(*len)) else { return false };
        let Some((name, after)) = after.split_at_checked(len) else { return false };
        if name == topic.as_bytes() {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_found_and_nonsense_names_none() {
        let metadata = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\0\0\0\0";
        assert!(names(metadata, "a") && names(metadata, "bc"));
        assert!(!names(metadata, "b") && !names(metadata, ""));
        for cut in 0..metadata.len() {
            names(&metadata[..cut], "zz");
        }
        assert!(!names(b"\0\x01\x7f\xff\xff\xff\xff\xff", "a"));
    }
}
