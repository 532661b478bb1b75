use super::*;

#[test]
fn ids_are_dense_stable_and_found_again() {
    let table = TableDictionary::new();
    let column = table.column("page");
    assert!(column.is_empty());
    let first = column.intern(["a", "b", "a", ""]).unwrap();
    assert_eq!(first, [1, 2, 1, 3]);
    assert_eq!(table.column("page").intern(["b", "c"]).unwrap(), [2, 4]);
    assert_eq!(column.len(), 5);
    assert_eq!(column.lookup(""), Some(3));
    assert_eq!(column.lookup("d"), None);
    let strings = column.strings();
    assert_eq!(strings.get(NULL_ID), None);
    assert_eq!(strings.get(4), Some("c"));
    assert_eq!(strings.get(5), None);
    assert_eq!(strings.get(u32::MAX), None);
}

#[test]
fn many_pages_and_a_test_of_every_string() {
    let column = ColumnDictionary::default();
    let strings: Vec<String> = (0..100_000).map(|i| format!("string {i}")).collect();
    let ids = column.intern(strings.iter().map(String::as_str)).unwrap();
    assert!(ids.iter().enumerate().all(|(i, id)| *id as usize == i + 1));
    assert_eq!(column.intern(strings.iter().rev().map(String::as_str)).unwrap()[0], 100_000);
    let selected = column.select(column.len(), |string| string.ends_with("99"));
    assert_eq!(selected.count(), 1_000);
    assert!(selected.contains(100));
    assert!(!selected.contains(NULL_ID));
    assert_eq!(column.select(101, |string| string.ends_with("99")).count(), 1);
    assert!(column.size_bytes() > 1 << 20);
}

#[test]
fn a_string_too_long_is_refused_and_the_rest_kept() {
    let column = ColumnDictionary::default();
    let long = "x".repeat(STRING_BYTES_MAX + 1);
    assert_eq!(column.intern(["a", &long]), Err(DictionaryFull));
    assert_eq!(column.lookup("a"), Some(1));
    assert!(column.intern([&long[1..]]).is_ok());
}

#[test]
fn readers_run_beside_a_writer() {
    let column = Arc::new(ColumnDictionary::default());
    let writer = Arc::clone(&column);
    let strings: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.intern(strings.iter().map(String::as_str)).unwrap());
        scope.spawn(|| {
            while column.len() < 50_001 {
                let len = column.len();
                let strings = column.strings();
                assert!((1..len).all(|id| strings.get(u32::try_from(id).unwrap()).is_some()));
            }
        });
    });
}

#[test]
fn a_search_finds_what_is_within_one_string() {
    let strings: Vec<String> = (0..20_000)
        .map(|n| match n % 7 {
            0 => String::new(),
            1 => format!("ab{n}"),
            _ => format!("{n}a"),
        })
        .collect();
    let dictionary = ColumnDictionary::default();
    let ids = dictionary.intern(strings.iter().map(String::as_str)).unwrap();
    assert_eq!(dictionary.lookup(""), Some(ids[0]));
    for needle in ["a", "ab", "a1", "99", "9a", "b1999", "nowhere", "0a1"] {
        let finder = memchr::memmem::Finder::new(needle);
        for len in [1, 2, 3, 4_096, 4_097, 4_098, dictionary.len() - 1, dictionary.len()] {
            let found = dictionary.containing(len, &finder);
            let expected = dictionary.select(len, |string| string.contains(needle));
            let ids = |set: &IdSet| {
                (0..u32::try_from(dictionary.len()).unwrap()).filter(|id| set.contains(*id)).collect::<Vec<_>>()
            };
            assert_eq!(ids(&found), ids(&expected), "{needle} below {len}");
        }
    }
}
