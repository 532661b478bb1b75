use super::*;

fn of(values: impl IntoIterator<Item = f64>) -> Quantiles {
    let mut sketch = Quantiles::default();
    values.into_iter().for_each(|value| sketch.add(value));
    sketch
}

fn at(sketch: &Quantiles, share: f64) -> Option<f64> {
    sketch.quantile(Share::new(share).unwrap())
}

fn mix(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

/// How far the rank of each answer is from what was asked, at most.
fn worst(sketch: &Quantiles, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let error = |percent: u32| {
        let share = f64::from(percent) / 100.0;
        let found = at(sketch, share).unwrap();
        let low = values.partition_point(|value| *value < found) as f64 / count;
        let high = values.partition_point(|value| *value <= found) as f64 / count;
        (low - share).max(share - high).max(0.0)
    };
    (0..=100).map(error).fold(0.0, f64::max)
}

#[test]
fn few_values_are_exact() {
    assert_eq!(at(&of([]), 0.5), None);
    let six = of([3.0, 6.0, 1.0, 5.0, 2.0, 4.0]);
    assert_eq!([0.0, 0.01, 0.5, 0.51, 0.98, 1.0].map(|share| at(&six, share).unwrap()), [1.0, 1.0, 3.0, 4.0, 6.0, 6.0]);
    let ten = of((1..=10).map(f64::from));
    assert_eq!((1..=10).map(|tenth| at(&ten, f64::from(tenth) / 10.0).unwrap()).sum::<f64>(), 55.0);
    let odd = of([f64::NAN, -0.0, f64::NEG_INFINITY, f64::INFINITY, 0.0, -1.5]);
    assert_eq!(odd.count(), 5);
    assert_eq!(
        [0.0, 0.2, 0.4, 0.6, 1.0].map(|share| at(&odd, share).unwrap()),
        [f64::NEG_INFINITY, f64::NEG_INFINITY, -1.5, 0.0, f64::INFINITY]
    );
    assert!(Share::new(1.01).is_none() && Share::new(-0.1).is_none() && Share::new(f64::NAN).is_none());
}

#[test]
fn ranks_are_close_in_any_order() {
    let count = 200_000_u64;
    let shapes: [fn(u64) -> f64; 5] = [
        |n| n as f64,
        |n| -(n as f64),
        |n| (mix(n) >> 11) as f64,
        |n| (mix(n) % 1_000) as f64,
        |n| 1e6 + ((mix(n) >> 40) as f64 / 1e6).powi(6),
    ];
    for shape in shapes {
        let values: Vec<f64> = (0..count).map(shape).collect();
        let sketch = of(values.iter().copied());
        assert!(sketch.held < 2_000 && sketch.count() == count);
        assert!(worst(&sketch, values) < 0.015, "{}", worst(&sketch, (0..count).map(shape).collect()));
    }
}

#[test]
fn merged_is_as_good_as_one() {
    let values: Vec<f64> = (0..300_000).map(|n| (mix(n) >> 20) as f64).collect();
    let mut all = Quantiles::default();
    let mut from = 0;
    for size in [1, 7, 255, 256, 257, 5_000, 94_224, 200_000] {
        all.merge(&of(values[from..from + size].iter().copied()));
        from += size;
    }
    assert_eq!((from, all.count()), (values.len(), 300_000));
    assert!(worst(&all, values.clone()) < 0.015, "{}", worst(&all, values));
    assert!(all.held < 2_000 && all.heap_bytes() < 64 << 10);
    let weight: u64 = all.levels.iter().enumerate().map(|(level, keys)| (keys.len() as u64) << level).sum();
    assert_eq!(weight, all.count());
}

#[test]
fn finer_is_closer() {
    let values: Vec<f64> = (0..100_000).map(|n| (mix(n) >> 20) as f64).collect();
    for (k, error) in [(2, 0.5), (32, 0.08), (1_024, 0.004), (K_MAX, 0.000_1)] {
        let mut sketch = Quantiles::new(k);
        values.iter().for_each(|value| sketch.add(*value));
        assert!(worst(&sketch, values.clone()) <= error, "k {k}: {}", worst(&sketch, values.clone()));
    }
}

#[test]
fn bytes_come_back_and_others_are_refused() {
    let sketch = of((0..70_000).map(|n| (mix(n) >> 30) as f64));
    let bytes = sketch.to_bytes();
    let back = Quantiles::from_bytes(&bytes).unwrap();
    assert_eq!((&back.levels, back.count, back.room), (&sketch.levels, sketch.count, sketch.room));
    assert_eq!(at(&back, 0.3), at(&sketch, 0.3));
    for cut in [0, 1, 9, 25, 27, 31, bytes.len() - 1] {
        assert!(Quantiles::from_bytes(&bytes[..cut]).is_none(), "{cut}");
    }
    let mut long = bytes.clone();
    long[26..30].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Quantiles::from_bytes(&long).is_none());
    // A lie about the values is no lie about the memory: adding to it ends.
    let mut lie = Quantiles::from_bytes(&bytes).unwrap();
    lie.count = u64::MAX / 2;
    (0..10_000).for_each(|n| lie.add(f64::from(n)));
    assert!(at(&lie, 0.5).is_some());
}
