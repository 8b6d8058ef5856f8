//! Where functions of a workspace may send requests to: nowhere, until it is said here.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use deadpool_postgres::Transaction;
use url::{Host, Url};

use crate::postgres::Fields as _;
use crate::{Entity, Error, Postgres, WorkspaceId};

/// Origins of one workspace.
const MOST: i64 = 100;

/// A scheme, a host or all hosts below one, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: &'static str,
    /// Stands for every host below it, and not for itself.
    below: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Whether a request to this address is one to here. An address without a port has its scheme's.
    pub fn allows(&self, address: &Url) -> bool {
        let Some(host) = address.host_str() else {
            return false;
        };
        let named = if self.below {
            host.strip_suffix(self.host.as_str())
                .is_some_and(|before| before.len() > 1 && before.ends_with('.'))
        } else {
            host == self.host
        };
        named && address.scheme() == self.scheme && address.port_or_known_default() == Some(self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{}://{below}{}:{}", self.scheme, self.host, self.port)
    }
}

impl FromStr for Origin {
    type Err = Error;

    /// `api.example.com`, `*.example.com`, `https://api.example.com:8443`, `http://…`; https where it does not say.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::Invalid {
            what: "a fetch origin",
            reason,
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let scheme = match scheme {
            "https" => "https",
            "http" => "http",
            _ => return Err(invalid("is https:// or http://")),
        };
        let (below, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let form = "has the form api.example.com, *.example.com or https://api.example.com:8443";
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|_| invalid(form))?;
        let plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty();
        if !plain || url.password().is_some() || rest.contains('*') {
            return Err(invalid(form));
        }
        match (url.host(), below) {
            (Some(Host::Domain(name)), true) if !name.contains('.') => {
                return Err(invalid("with *. names at least two more labels"));
            }
            (Some(Host::Domain(_)), _) | (Some(_), false) => {}
            _ => return Err(invalid(form)),
        }
        Ok(Self {
            scheme,
            below,
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        })
    }
}

/// The repository of origins.
#[derive(Clone, Debug)]
pub struct FetchOrigins {
    postgres: Postgres,
}

impl FetchOrigins {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Lets functions of a workspace send requests there. Once is enough.
    ///
    /// # Errors
    /// When the workspace has too many, or Postgres does not answer.
    pub async fn allow(&self, workspace: &WorkspaceId, origin: &Origin) -> Result<(), Error> {
        let query = "WITH has AS (SELECT count(*) AS many, count(*) FILTER (WHERE origin = $2) AS this
                FROM fetch_origins WHERE workspace = $1),
            made AS (INSERT INTO fetch_origins (workspace, origin)
                SELECT $1, $2 FROM has WHERE many < $3 ON CONFLICT DO NOTHING)
            SELECT this > 0 OR many < $3 AS fits FROM has";
        let fits = self
            .postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let origin = origin.to_string();
                let row = transaction
                    .query_one(query, &[&workspace.as_str(), &origin, &MOST])
                    .await?;
                self.postgres.keep(transaction).await?;
                row.field::<bool>("fits")
            })
            .await?;
        if fits {
            return Ok(());
        }
        Err(Error::Invalid {
            what: "a workspace",
            reason: "has 100 fetch origins at most",
        })
    }

    /// Forbids it again.
    ///
    /// # Errors
    /// When it was not allowed, or Postgres does not answer.
    pub async fn forbid(&self, workspace: &WorkspaceId, origin: &Origin) -> Result<(), Error> {
        let query = "DELETE FROM fetch_origins WHERE workspace = $1 AND origin = $2";
        let origin = origin.to_string();
        let changed = self
            .postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let changed = transaction
                    .execute(query, &[&workspace.as_str(), &origin])
                    .await?;
                self.postgres.keep(transaction).await?;
                Ok(changed)
            })
            .await?;
        if changed == 0 {
            return Err(Error::NotFound {
                entity: Entity::Origin,
                name: origin,
            });
        }
        Ok(())
    }

    /// Where functions of a workspace may send requests to.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Origin>, Error> {
        let query = "SELECT origin FROM fetch_origins WHERE workspace = $1 ORDER BY origin";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let rows = client.query(&statement, &[&workspace.as_str()]).await?;
                rows.iter().map(|row| row.parsed("origin")).collect()
            })
            .await
    }
}

/// The origins of every workspace.
pub(crate) async fn all(transaction: &Transaction<'_>) -> Result<HashMap<WorkspaceId, Vec<Origin>>, Error> {
    let query = "SELECT workspace, origin FROM fetch_origins ORDER BY workspace, origin";
    let mut origins: HashMap<WorkspaceId, Vec<Origin>> = HashMap::new();
    for row in transaction.query(query, &[]).await? {
        origins
            .entry(row.parsed("workspace")?)
            .or_default()
            .push(row.parsed("origin")?);
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_out_in_full() {
        for (text, full) in [
            ("api.example.com", "https://api.example.com:443"),
            ("https://API.Example.com/", "https://api.example.com:443"),
            ("*.example.com", "https://*.example.com:443"),
            ("http://api.example.com", "http://api.example.com:80"),
            ("https://api.example.com:8443", "https://api.example.com:8443"),
            ("*.bücher.example", "https://*.xn--bcher-kva.example:443"),
            ("http://192.0.2.1:8080", "http://192.0.2.1:8080"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ] {
            let origin: Origin = text.parse().expect(text);
            assert_eq!(origin.to_string(), full);
            assert_eq!(full.parse::<Origin>().expect(full), origin, "{full} is read back");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "*",
            "*.com",
            "a.*.com",
            "ftp://a.com",
            "a.com/path",
            "a.com?q",
            "https://user@a.com",
            "https://u:p@a.com",
            "*.192.0.2.1",
            "a b.com",
            "https://",
            "*.*.a.com",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_origin_allows_its_own_addresses_only() {
        let allows = |origin: &str, address: &str| {
            let origin: Origin = origin.parse().expect(origin);
            origin.allows(&Url::parse(address).expect(address))
        };
        assert!(allows("a.com", "https://a.com/x?y#z"));
        assert!(allows("a.com", "https://A.COM:443/"));
        assert!(allows("*.a.com", "https://b.a.com/"));
        assert!(allows("*.a.com", "https://c.b.a.com/"));
        for (origin, address) in [
            ("a.com", "http://a.com/"),
            ("a.com", "https://a.com:444/"),
            ("a.com", "https://b.a.com/"),
            ("a.com", "https://a.com.evil.org/"),
            ("a.com", "https://a.com@evil.org/"),
            ("*.a.com", "https://a.com/"),
            ("*.a.com", "https://evila.com/"),
            ("*.a.com", "https://b.a.com.evil.org/"),
        ] {
            assert!(!allows(origin, address), "{origin} {address}");
        }
    }
}
