//! How PostgreSQL destinations are opened: their addresses lie sealed in their settings, the keys in a file.

use std::path::PathBuf;
use std::time::Duration;

use millrace_postgres_destination::{Config, Postgres};
use millrace_service::Causes;
use millrace_store::Keyring;
use millrace_store::destinations::{Configured, Settings, open_url};

/// Connections to one destination, at most.
const CONNECTIONS: usize = 4;

/// What destinations are opened with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The file with the keys. Read anew at each opening: keys change before what is sealed under them does.
    pub key_file: Option<PathBuf>,
    /// How long an insert may take.
    pub insert_timeout: Duration,
    /// How late after its owner was stopped an insert may still arrive.
    pub latest_arrival: Duration,
}

impl Credentials {
    /// A PostgreSQL destination, with the name that its rows know it by. Connects to nothing yet.
    ///
    /// # Errors
    /// Its address is not set or does not open, in words for a log; they hold nothing of it.
    pub fn open(&self, database: &str, configured: &Configured, group: &str) -> Result<Postgres, String> {
        let Settings::Postgres(settings) = &configured.settings else {
            return Err("it is no PostgreSQL destination".to_owned());
        };
        let Some(sealed) = &settings.url else {
            return Err("its address is not set: `millctl destination set … --url-file`".to_owned());
        };
        let Some(path) = &self.key_file else {
            return Err("secrets.key_file is not set".to_owned());
        };
        let keys = Keyring::read(path).map_err(|error| Causes(&error).to_string())?;
        let destination = &configured.destination;
        let url = open_url(&keys, &configured.workspace, &destination.name, sealed)
            .map_err(|error| error.to_string())?;
        let mut config = Config::new(database, group, url);
        config.schema.clone_from(&destination.database);
        config.connections = CONNECTIONS;
        config.insert_timeout = self.insert_timeout;
        config.lease = self.latest_arrival;
        config.build().map_err(|error| error.to_string())
    }
}
