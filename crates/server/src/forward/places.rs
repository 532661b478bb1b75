//! How far everything is, in one small file that is replaced as a whole: docs/formats/forward-places.md.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base::{Offset, ProducerEpoch, ProducerId};
use log::forward::{Cut, Place, Producer};
use serde::{Deserialize, Serialize};

const FILE: &str = "forward.json";
const VERSION: u32 = 1;
/// A file larger than this is some other file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why the places cannot be read or written. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    #[error(
        "{path} is damaged ({cause}): what was passed on is not known. Restore it from a copy, or remove it to send all \
         that is in the spool again (the cluster would have what it has twice)"
    )]
    Damaged { path: PathBuf, cause: String },
    #[error("{path} has version {found}, this program knows {VERSION}: use the newer program")]
    Newer { path: PathBuf, found: u32 },
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    places: BTreeMap<String, PlaceWritten>,
}

#[derive(Serialize, Deserialize)]
struct PlaceWritten {
    from: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer: Option<(i64, i16, i32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cuts: Vec<(i64, i32)>,
}

/// All places by name: of a partition its topic's id and index, of a tailed file its path and inode.
#[derive(Debug)]
pub struct Places {
    folder: PathBuf,
    places: Mutex<BTreeMap<String, Place>>,
}

impl Places {
    /// Reads the file; none is an empty one.
    pub fn open(folder: &Path) -> Result<Self, PlacesError> {
        let path = folder.join(FILE);
        let damaged = |cause: String| PlacesError::Damaged { path: path.clone(), cause };
        let places = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(PlacesError::Io(path, error)),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(damaged(format!("{} bytes", metadata.len())));
            }
            Ok(_) => {
                let text = fs::read_to_string(&path).map_err(|error| PlacesError::Io(path.clone(), error))?;
                let (body, sum) = text.trim_end().rsplit_once('\n').ok_or_else(|| damaged("no checksum".into()))?;
                if sum != checksum(body) {
                    return Err(damaged("its checksum differs".into()));
                }
                let written: Written = serde_json::from_str(body).map_err(|error| damaged(error.to_string()))?;
                if written.version != VERSION {
                    return Err(PlacesError::Newer { path, found: written.version });
                }
                written.places.into_iter().map(|(name, place)| (name, place.read())).collect()
            }
        };
        Ok(Self { folder: folder.to_owned(), places: Mutex::new(places) })
    }

    /// The place of that name; the beginning if there is none.
    pub fn get(&self, name: &str) -> Place {
        self.lock().get(name).cloned().unwrap_or_default()
    }

    /// Names that begin so.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.lock().keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Sets and removes places; durable when this returns.
    pub fn save<'a>(
        &self,
        changed: impl IntoIterator<Item = (&'a str, &'a Place)>,
        gone: &[String],
    ) -> Result<(), PlacesError> {
        let mut places = self.lock();
        for (name, place) in changed {
            places.insert(name.to_owned(), place.clone());
        }
        gone.iter().for_each(|name| drop(places.remove(name)));
        let written = Written {
            version: VERSION,
            places: places.iter().map(|(name, place)| (name.clone(), PlaceWritten::of(place))).collect(),
        };
        self.write(&written).map_err(|error| PlacesError::Io(self.folder.join(FILE), error))
    }

    fn write(&self, written: &Written) -> std::io::Result<()> {
        let body = serde_json::to_string(written)?;
        let (path, beside) = (self.folder.join(FILE), self.folder.join("forward.json.new"));
        let mut file = File::create(&beside)?;
        file.write_all(format!("{body}\n{}\n", checksum(&body)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlaceWritten {
    fn of(place: &Place) -> Self {
        Self {
            from: place.from.0,
            producer: place.producer.map(|producer| (producer.id.0, producer.epoch.0, producer.sequence)),
            cuts: place.cuts.iter().map(|cut| (cut.to.0, cut.records)).collect(),
        }
    }

    fn read(self) -> Place {
        let producer = |(id, epoch, sequence)| Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch), sequence };
        Place {
            from: Offset(self.from),
            producer: self.producer.map(producer),
            cuts: self.cuts.into_iter().map(|(to, records)| Cut { to: Offset(to), records }).collect(),
        }
    }
}

fn checksum(body: &str) -> String {
    format!("{:08x}", base::checksum::crc32c(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_and_damage_is_said() {
        let folder = std::env::temp_dir().join(format!("seawall-places-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&folder).unwrap();
        let place = Place {
            from: Offset(7),
            producer: Some(Producer { id: ProducerId(3), epoch: ProducerEpoch(1), sequence: 9 }),
            cuts: vec![Cut { to: Offset(9), records: 2 }],
        };
        let places = Places::open(&folder).unwrap();
        assert_eq!(places.get("a"), Place::default());
        places.save([("a", &place), ("b", &Place::default())], &[]).unwrap();
        places.save([], &["b".to_owned()]).unwrap();
        let again = Places::open(&folder).unwrap();
        assert_eq!((again.get("a"), again.names("")), (place, vec!["a".to_owned()]));
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).unwrap().replace("\"from\":7", "\"from\":8");
        fs::write(&path, text).unwrap();
        assert!(matches!(Places::open(&folder), Err(PlacesError::Damaged { .. })));
        fs::write(&path, "").unwrap();
        assert!(matches!(Places::open(&folder), Err(PlacesError::Damaged { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }
}
