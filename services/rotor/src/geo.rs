//! `ctx.geo`: where an address is, from a database in a file that an operator names.
//!
//! The file is held in memory and read again when it was replaced; while a new one cannot be read the old one stays.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use maxminddb::{Reader, geoip2};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What functions read; what is not known is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Place {
    continent: Option<String>,
    country: Option<Country>,
    region: Option<Region>,
    city: Option<String>,
    #[serde(rename = "postalCode")]
    postal_code: Option<String>,
    timezone: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Country {
    code: String,
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Region {
    code: Option<String>,
    name: Option<String>,
}

/// Places of addresses; without a file none is known.
#[derive(Clone, Default)]
pub struct Geo {
    places: Option<Arc<Places>>,
}

struct Places {
    file: PathBuf,
    database: RwLock<Option<Database>>,
}

struct Database {
    reader: Arc<Reader<Vec<u8>>>,
    written: Option<SystemTime>,
}

impl fmt::Debug for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.places.as_ref().map(|places| &places.file);
        f.debug_struct("Geo").field("file", &file).finish()
    }
}

impl Geo {
    /// Reads the file, and looks after it until `ended` is cancelled. Within a Tokio runtime.
    pub fn start(file: Option<PathBuf>, ended: CancellationToken) -> Self {
        let Some(file) = file else { return Self::default() };
        let places = Arc::new(Places {
            file,
            database: RwLock::new(None),
        });
        places.refresh();
        let looked_after = Arc::clone(&places);
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let places = Arc::clone(&looked_after);
                // Only a panic would be an error, and the next look comes.
                drop(tokio::task::spawn_blocking(move || places.refresh()).await);
            }
        }));
        Self { places: Some(places) }
    }

    /// Where an address is; nothing for what is no address or not in the database.
    pub(crate) fn place(&self, address: &str) -> Option<Place> {
        let address: IpAddr = address.parse().ok()?;
        let reader = {
            let database = self
                .places
                .as_ref()?
                .database
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&database.as_ref()?.reader)
        };
        let found = reader.lookup(address).ok()?;
        let city = found.decode::<geoip2::City<'_>>().ok()??;
        Some(Place::from(&city))
    }
}

impl Places {
    fn refresh(&self) {
        let written = std::fs::metadata(&self.file)
            .and_then(|file| file.modified())
            .ok();
        let known = {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            database.as_ref().map(|database| database.written)
        };
        if known == Some(written) {
            return;
        }
        let file = self.file.display();
        match Reader::open_readfile(&self.file) {
            Ok(reader) => {
                tracing::info!(%file, kind = reader.metadata.database_type, "places of addresses are read");
                *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Database {
                    reader: Arc::new(reader),
                    written,
                });
            }
            Err(error) => {
                tracing::warn!(%file, %error, "places of addresses cannot be read, ctx.geo is what it was, null at first");
            }
        }
    }
}

impl From<&geoip2::City<'_>> for Place {
    fn from(city: &geoip2::City<'_>) -> Self {
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        let region = city.subdivisions.first().map(|region| Region {
            code: text(region.iso_code),
            name: text(region.names.english),
        });
        Self {
            continent: text(city.continent.code),
            country: city.country.iso_code.map(|code| Country {
                code: code.to_owned(),
                name: text(city.country.names.english),
            }),
            region,
            city: text(city.city.names.english),
            postal_code: text(city.postal.code),
            timezone: text(city.location.time_zone),
            latitude: city.location.latitude,
            longitude: city.location.longitude,
        }
    }
}
