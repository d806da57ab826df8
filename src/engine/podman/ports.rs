//! A container's ports, as `podman ps` shows them.

use std::collections::HashSet;

use serde::Deserialize;

use crate::engine::inventory::null_default;

/// Ports of the host that lead to a container's.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Mapping {
    #[serde(default, deserialize_with = "null_default")]
    host_ip: String,
    #[serde(default)]
    host_port: u16,
    container_port: u16,
    /// How many.
    #[serde(default)]
    range: u16,
    #[serde(default, deserialize_with = "null_default")]
    protocol: String,
}

/// A port that an image or a person names, and that no port of the host leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exposed {
    pub protocol: String,
    pub port: u16,
}

/// `0.0.0.0:8080->80/tcp, 443/tcp, 9000-9002/udp`.
pub(super) fn shown(mappings: &[Mapping], mut exposed: Vec<Exposed>) -> String {
    let mut words = Vec::new();
    let mut published: HashSet<(u32, &str)> = HashSet::new();
    for mapping in mappings {
        let address = match mapping.host_ip.as_str() {
            "" => "0.0.0.0",
            address => address,
        };
        let (host, inside) = (mapping.host_port, mapping.container_port);
        let more = u32::from(mapping.range.saturating_sub(1));
        let ports = |first: u16| match more {
            0 => first.to_string(),
            more => format!("{first}-{}", u32::from(first) + more),
        };
        let protocol = &mapping.protocol;
        words.push(format!(
            "{address}:{}->{}/{protocol}",
            ports(host),
            ports(inside)
        ));
        published.extend((0..=more).map(|of| (u32::from(inside) + of, protocol.as_str())));
    }
    exposed.sort_unstable();
    exposed.dedup();
    exposed.retain(|of| !published.contains(&(u32::from(of.port), of.protocol.as_str())));
    let is_next = |a: &Exposed, b: &Exposed| {
        a.protocol == b.protocol && u32::from(a.port) + 1 == u32::from(b.port)
    };
    words.extend(exposed.chunk_by(is_next).map(|run| match run {
        [only] => format!("{}/{}", only.port, only.protocol),
        run => format!(
            "{}-{}/{}",
            run[0].port,
            run[run.len() - 1].port,
            run[0].protocol
        ),
    }));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_podman_shows_them() {
        let mappings = r#"[{"host_ip":"","container_port":80,"host_port":8080,"range":1,"protocol":"tcp"},
                           {"host_ip":"127.0.0.1","container_port":90,"host_port":9090,"range":3,"protocol":"udp"}]"#;
        let mappings: Vec<Mapping> = serde_json::from_str(mappings).unwrap();
        let exposed = |ports: &[(u16, &str)]| -> Vec<Exposed> {
            let of = |&(port, protocol): &(u16, &str)| Exposed {
                port,
                protocol: protocol.to_owned(),
            };
            ports.iter().map(of).collect()
        };
        let ports = exposed(&[
            (80, "tcp"),
            (91, "udp"),
            (443, "tcp"),
            (1002, "tcp"),
            (1001, "tcp"),
        ]);
        assert_eq!(
            shown(&mappings, ports),
            "0.0.0.0:8080->80/tcp, 127.0.0.1:9090-9092->90-92/udp, 443/tcp, 1001-1002/tcp"
        );
        assert_eq!(shown(&[], exposed(&[(8080, "tcp")])), "8080/tcp");
        assert_eq!(shown(&[], Vec::new()), "");
    }
}
