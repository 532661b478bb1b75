use super::aggregates::filter;
use super::naive::{sort, test};
use super::*;

const ALL: [&str; 15] = [
    "__time", "word", "few", "unique", "long", "wide", "double", "flag", "none", "nothing", "at", "strings", "longs",
    "doubles", "json",
];

fn scan(table: &Table, query: &ScanQuery, rows_per_unit: usize) -> Vec<Vec<Cell>> {
    let scan = Arc::new(Scan::plan(&table.snapshot, query, &Limits::default()).unwrap());
    let units = scan.units(rows_per_unit).into_iter();
    units.flat_map(|unit| scan.open(unit)).flat_map(|batch| rows_of(&batch.unwrap())).collect()
}

fn selected(table: &Table, filter: Option<&Filter>) -> Vec<Vec<Cell>> {
    let keep = |row: &&Vec<Cell>| filter.is_none_or(|filter| test(filter, row) == Some(true));
    table.rows.iter().filter(keep).cloned().collect()
}

#[test]
fn a_scan_gives_the_rows_in_their_order() {
    for (number, sizes) in [&[0_usize, 1][..], &[1_023, 1_024, 1_025, 300], &[9_000, 100]].into_iter().enumerate() {
        let table = table(40 + number as u64, sizes, 300);
        let random = &mut Random(9);
        for _ in 0..12 {
            let query = ScanQuery {
                projection: ALL.map(str::to_owned).to_vec(),
                filter: random.chance(80).then(|| filter(random, 2)),
                ..ScanQuery::default()
            };
            let expected = selected(&table, query.filter.as_ref());
            assert_eq!(scan(&table, &query, 4_096), expected, "{query:#?}");
            let columns = ScanQuery { projection: vec!["few".to_owned(), "long".to_owned()], ..query.clone() };
            let narrow: Vec<Vec<Cell>> = expected.iter().map(|row| vec![row[2].clone(), row[4].clone()]).collect();
            assert_eq!(scan(&table, &columns, usize::MAX), narrow);
        }
    }
}

#[test]
fn limit_and_reverse_hold_within_a_unit() {
    let table = table(3, &[5_000], 30);
    let all = ScanQuery { projection: vec!["unique".to_owned()], ..ScanQuery::default() };
    let mut rows = scan(&table, &all, usize::MAX);
    rows.reverse();
    let reversed = ScanQuery { reverse: true, limit: Some(1_500), ..all.clone() };
    assert_eq!(scan(&table, &reversed, usize::MAX), rows[..1_500]);
    let none = ScanQuery { projection: Vec::new(), limit: Some(7), ..all };
    assert_eq!(scan(&table, &none, usize::MAX).len(), 7);
}

#[test]
fn the_newest_and_the_oldest_rows() {
    let table = table(8, &[3_000, 2_000, 0, 1_000, 3_000], 30);
    let random = &mut Random(4);
    for round in 0..20 {
        let query = ScanQuery {
            projection: vec!["__time".to_owned(), "unique".to_owned()],
            filter: (round > 3).then(|| filter(random, 1)),
            limit: Some([1, 10, 100, 2_500][round % 4]),
            reverse: false,
        };
        let scan = Scan::plan(&table.snapshot, &query, &Limits::default()).unwrap();
        let mut times: Vec<Cell> =
            selected(&table, query.filter.as_ref()).into_iter().map(|mut row| row.swap_remove(0)).collect();
        times.sort_by(|a, b| a.partial_cmp(b).unwrap());
        for newest in [false, true] {
            if newest {
                times.reverse();
            }
            let found = rows_of(&scan.by_time(newest).unwrap());
            let expected = &times[..times.len().min(query.limit.unwrap())];
            assert_eq!(found.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), expected);
            let mut pairs: Vec<Vec<Cell>> = table.rows.iter().map(|row| vec![row[0].clone(), row[3].clone()]).collect();
            sort(&mut pairs);
            assert!(found.iter().all(|row| pairs.binary_search_by(|pair| pair.partial_cmp(row).unwrap()).is_ok()));
        }
    }
}
