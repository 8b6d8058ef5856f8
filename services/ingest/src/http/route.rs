//! Paths: those of the documented API, the short ones of browsers and mobile libraries, and those of
//! RudderStack's and Jitsu's clients.

use std::borrow::Cow;
use std::sync::Arc;

use crate::pipeline::{Kind, Shape};

const SEGMENT: [Kind; 6] = [
    Kind::Track,
    Kind::Identify,
    Kind::Page,
    Kind::Group,
    Kind::Screen,
    Kind::Alias,
];

/// What is served at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Events in the body.
    Events { shape: Shape, import: bool },
    /// An event in the query, answered with an image.
    Pixel(Kind),
    /// What Segment's clients load before they send.
    Settings,
    /// What RudderStack's clients load before they send.
    Source,
    /// Metrics of browser clients about themselves; taken and left unread.
    Sink,
}

/// A path that is served.
#[derive(Debug)]
pub(super) struct Route {
    /// The pattern, never what a client sent.
    pub(super) path: Arc<str>,
    pub(super) endpoint: Endpoint,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Routes {
    router: matchit::Router<Route>,
}

impl Endpoint {
    const fn batch() -> Self {
        Self::Events {
            shape: Shape::Batch,
            import: false,
        }
    }

    const fn single(kind: Kind) -> Self {
        Self::Events {
            shape: Shape::Single(kind),
            import: false,
        }
    }

    /// The methods, as `Allow` names them.
    pub(super) const fn methods(self) -> &'static str {
        match self {
            Self::Events { .. } | Self::Sink => "POST, OPTIONS",
            Self::Pixel(_) | Self::Settings | Self::Source => "GET, HEAD, OPTIONS",
        }
    }
}

impl Routes {
    /// Every path of the API.
    pub(super) fn new() -> Result<Self, matchit::InsertError> {
        let mut routes = Self {
            router: matchit::Router::new(),
        };
        let kinds = Kind::ALL
            .iter()
            .map(|kind| (kind.as_str(), Endpoint::single(*kind)));
        for (name, endpoint) in kinds.chain([("batch", Endpoint::batch())]) {
            for prefix in ["/v1", "", "/api/s", "/api/s/s2s"] {
                routes.add(format!("{prefix}/{name}"), endpoint)?;
            }
        }
        for kind in SEGMENT {
            let name = kind.as_str();
            let short: String = name.chars().take(1).collect();
            routes.add(format!("/v1/{short}"), Endpoint::single(kind))?;
            for prefix in ["/v1/pixel", "/pixel/v1", "/api/px"] {
                routes.add(format!("{prefix}/{name}"), Endpoint::Pixel(kind))?;
            }
        }
        let import = Endpoint::Events {
            shape: Shape::Batch,
            import: true,
        };
        for (path, endpoint) in [
            ("/v1/b", Endpoint::batch()),
            ("/beacon/v1/batch", Endpoint::batch()),
            ("/v1/import", import),
            ("/v1/m", Endpoint::Sink),
            ("/v1/projects/{key}/settings", Endpoint::Settings),
            ("/projects/{key}/settings", Endpoint::Settings),
            ("/v1/projects/projects/{key}/settings", Endpoint::Settings),
            ("/sourceConfig", Endpoint::Source),
        ] {
            routes.add(path.to_owned(), endpoint)?;
        }
        Ok(routes)
    }

    fn add(&mut self, path: String, endpoint: Endpoint) -> Result<(), matchit::InsertError> {
        let route = Route {
            path: path.as_str().into(),
            endpoint,
        };
        self.router.insert(path, route)
    }

    /// The route of a path in its [`plain`] form, with the key where the path carries one.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<(&'a Route, Option<&'a str>)> {
        let found = self.router.at(path).ok()?;
        Some((found.value, found.params.get("key")))
    }
}

/// A path without doubled and trailing slashes: clients are configured with both, and a redirect would lose
/// their bodies.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains("//") && (path.len() == 1 || !path.ends_with('/')) {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        plain.push('/');
        plain.push_str(part);
    }
    if plain.is_empty() {
        plain.push('/');
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(path: &str) -> Option<Endpoint> {
        let routes = Routes::new().unwrap();
        routes.find(path).map(|(route, _)| route.endpoint)
    }

    #[test]
    fn every_event_type_has_its_paths() {
        for kind in Kind::ALL {
            for prefix in ["/v1", "", "/api/s", "/api/s/s2s"] {
                let path = format!("{prefix}/{}", kind.as_str());
                assert_eq!(endpoint(&path), Some(Endpoint::single(kind)), "{path}");
            }
        }
        for (short, kind) in ["t", "i", "p", "g", "s", "a"].into_iter().zip([
            Kind::Track,
            Kind::Identify,
            Kind::Page,
            Kind::Group,
            Kind::Screen,
            Kind::Alias,
        ]) {
            assert_eq!(endpoint(&format!("/v1/{short}")), Some(Endpoint::single(kind)));
        }
        for path in [
            "/v1/batch",
            "/batch",
            "/v1/b",
            "/beacon/v1/batch",
            "/api/s/s2s/batch",
        ] {
            assert_eq!(endpoint(path), Some(Endpoint::batch()), "{path}");
        }
        for path in ["/v1/pixel/page", "/pixel/v1/page", "/api/px/page"] {
            assert_eq!(endpoint(path), Some(Endpoint::Pixel(Kind::Page)), "{path}");
        }
        for path in ["/", "/v1", "/v2/batch", "/v1/batch/x", "/v1/projects/settings"] {
            assert_eq!(endpoint(path), None, "{path}");
        }
    }

    #[test]
    fn settings_are_found_with_their_key_under_every_path_that_clients_make() {
        let routes = Routes::new().unwrap();
        for path in [
            "/v1/projects/wk_a/settings",
            "/projects/wk_a/settings",
            "/v1/projects/projects/wk_a/settings",
        ] {
            let (route, key) = routes.find(path).unwrap();
            assert_eq!(
                (route.endpoint, key),
                (Endpoint::Settings, Some("wk_a")),
                "{path}"
            );
            assert!(!route.path.contains("wk_a"));
        }
    }

    #[test]
    fn slashes_too_many_are_forgiven() {
        for (path, expected) in [
            ("/v1/batch/", "/v1/batch"),
            ("//v1//batch", "/v1/batch"),
            ("/", "/"),
            ("//", "/"),
            ("/v1/batch", "/v1/batch"),
        ] {
            assert_eq!(plain(path), expected);
        }
    }
}
