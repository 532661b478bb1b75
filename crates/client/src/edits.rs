//! Wikipedia-like edits: the events of the demo and of the benches. The same seed gives the same edits.
//!
//! Channels, pages and users follow Zipf's law, as on the real site; most edits have no country. One edit is one
//! line of JSON with the fields of Druid's tutorial data that the benches ask for.

use std::fmt::Write;

const CHANNELS: usize = 50;
const PAGES: usize = 500_000;
const USERS: usize = 200_000;
const COUNTRIES: usize = 200;
const CITIES: usize = 2_000;
const LANGUAGES: [&str; 50] = [
    "en", "de", "fr", "es", "ru", "ja", "it", "zh", "pt", "pl", "nl", "ar", "fa", "sv", "uk", "vi", "ko", "he", "id",
    "cs", "fi", "no", "hu", "tr", "ca", "ro", "da", "sr", "bg", "ms", "sk", "el", "lt", "hr", "et", "sl", "eu", "gl",
    "hi", "th", "la", "ka", "hy", "kk", "uz", "be", "az", "lv", "mk", "ceb",
];
const WORDS: [&str; 16] = [
    "fixed",
    "typo",
    "added",
    "source",
    "removed",
    "vandalism",
    "link",
    "category",
    "updated",
    "infobox",
    "reverted",
    "copyedit",
    "image",
    "stub",
    "reference",
    "section",
];

/// A stream of edits.
#[derive(Clone, Debug)]
pub struct Edits {
    random: Random,
    channels: Zipf,
    pages: Zipf,
    users: Zipf,
    countries: Zipf,
    cities: Zipf,
}

impl Edits {
    /// Everything follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed ^ 0x5eed_5ea0_a115_eed5),
            channels: Zipf::new(CHANNELS, 1.2),
            pages: Zipf::new(PAGES, 0.8),
            users: Zipf::new(USERS, 0.95),
            countries: Zipf::new(COUNTRIES, 1.0),
            cities: Zipf::new(CITIES, 1.0),
        }
    }

    /// Appends the next edit, made at `time_ms`, to `out` as one JSON object without a line end.
    pub fn write(&mut self, time_ms: i64, out: &mut String) {
        let page = self.pages.draw(&mut self.random);
        // A page belongs to one wiki: its channel follows from its number.
        let channel = self.channels.at(fraction(mix(page as u64)));
        let user = self.users.draw(&mut self.random);
        let robot = self.random.below(1_000) < 65;
        let anonymous = !robot && self.random.below(100) < 10;
        let new = self.random.below(100) < 6;
        let added = self.random.skewed();
        let deleted = if self.random.below(3) == 0 { self.random.skewed() } else { 0 };
        let delta = added - deleted;
        let comment = self.random.next();
        let written = write!(
            out,
            r##"{{"__time":{time_ms},"channel":"#{}.wikipedia","page":"{} {page}","user":"{}","##,
            LANGUAGES[channel],
            WORDS[page % WORDS.len()],
            if anonymous {
                format!("10.{}.{}.{}", user >> 16, (user >> 8) & 255, user & 255)
            } else {
                format!("User{user}")
            },
        );
        debug_assert!(written.is_ok(), "a string takes everything");
        if anonymous {
            let country = self.countries.draw(&mut self.random);
            const LETTERS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
            let letter = |at: usize| char::from(LETTERS[at % LETTERS.len()]);
            let (first, second) = (letter(country * 7 + 3), letter((country * 7 + 3) / LETTERS.len()));
            let _ = write!(out, r#""countryIsoCode":"{first}{second}","#);
            if self.random.below(10) < 6 {
                let _ = write!(out, r#""cityName":"City {}","#, self.cities.draw(&mut self.random));
            }
        }
        let _ = write!(
            out,
            r#""isRobot":{robot},"isNew":{new},"isAnonymous":{anonymous},"added":{added},"deleted":{deleted},"delta":{delta},"comment":"{} {} {:x}"}}"#,
            WORDS[(comment & 15) as usize],
            WORDS[(comment >> 4 & 15) as usize],
            comment >> 8 & 0xff_ffff,
        );
    }
}

/// SplitMix64.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Mostly small, seldom large: what an edit adds in bytes.
    fn skewed(&mut self) -> i64 {
        let bits = self.below(13);
        i64::try_from(self.below(1 << bits)).unwrap_or(0)
    }
}

fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn fraction(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

/// Ranks drawn with probability proportional to 1 / rank^exponent.
#[derive(Clone, Debug)]
struct Zipf {
    /// Upper bound of each rank's share of `[0, 1)`.
    bounds: Vec<f64>,
}

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^53")]
    fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut bounds: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        bounds.iter_mut().for_each(|bound| *bound /= sum);
        Self { bounds }
    }

    fn at(&self, fraction: f64) -> usize {
        self.bounds.partition_point(|bound| *bound <= fraction).min(self.bounds.len() - 1)
    }

    fn draw(&self, random: &mut Random) -> usize {
        self.at(fraction(random.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::Edits;

    #[test]
    fn the_same_seed_gives_the_same_edits() {
        let write = |seed| {
            let (mut edits, mut out) = (Edits::new(seed), String::new());
            (0..100).for_each(|index| edits.write(index, &mut out));
            out
        };
        assert_eq!(write(7), write(7));
        assert_ne!(write(7), write(8));
    }
}
