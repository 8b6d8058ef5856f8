//! What clients load before they send.
//!
//! Nothing here depends on whether a key is known: a page must not break over its analytics, and the answer
//! can be cached.

use http::Uri;
use serde_json::{Value, json};

/// Where browsers reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Public {
    scheme: String,
    authority: String,
}

impl Public {
    /// `http(s)://host` or `http(s)://host:port`.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| ["http", "https"].contains(scheme))?;
        let authority = uri.authority()?.as_str();
        let bare = uri.path().len() <= 1 && uri.query().is_none() && !authority.contains('@');
        bare.then(|| Self {
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
        })
    }
}

/// The settings of analytics.js and the mobile libraries: this gateway is the only destination, and every
/// event is wanted.
pub(super) fn segment(key: &str, public: Option<&Public>) -> Value {
    let mut destination = json!({ "apiKey": key });
    if let Some(Public { scheme, authority }) = public {
        destination["apiHost"] = format!("{authority}/v1").into();
        destination["protocol"] = scheme.as_str().into();
    }
    let enabled = json!({ "__default": { "enabled": true, "integrations": {} } });
    json!({
        "integrations": { "Segment.io": destination },
        "plan": { "track": enabled, "identify": enabled, "group": enabled },
        "edgeFunction": {},
        "analyticsNextEnabled": true,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": { "sampleRate": 0 },
        "remotePlugins": [],
    })
}

/// The source of RudderStack's clients: enabled, without destinations of its own.
pub(super) fn rudder(key: &str) -> Value {
    let off = json!({ "enabled": false });
    json!({
        "source": {
            "id": key,
            "name": key,
            "writeKey": key,
            "enabled": true,
            "workspaceId": "",
            "config": { "statsCollection": { "errors": off, "metrics": off } },
            "connections": [],
            "destinations": [],
            "dataplanes": {},
        },
        "updatedAt": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_names_itself_only_where_it_is_told_its_name() {
        let settings = segment("wk_a", None);
        assert_eq!(
            settings["integrations"]["Segment.io"],
            json!({ "apiKey": "wk_a" })
        );
        assert_eq!(settings["plan"]["track"]["__default"]["enabled"], true);
        let public = Public::of("https://events.example.com:8443").unwrap();
        let settings = segment("wk_a", Some(&public));
        assert_eq!(
            settings["integrations"]["Segment.io"],
            json!({ "apiKey": "wk_a", "apiHost": "events.example.com:8443/v1", "protocol": "https" })
        );
        for url in [
            "events.example.com",
            "ftp://a",
            "https://a/b",
            "https://u@a",
            "https://a?b",
        ] {
            assert_eq!(Public::of(url), None, "{url}");
        }
    }
}
