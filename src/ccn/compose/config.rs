//! Reads from pyaleph's `config.yml` which kubo belongs to the node.

use std::path::Path;

use super::yaml::{self, YamlNode, YamlValue};
use crate::sys::read_bounded;

/// Upper limit of the file's length, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The hosts under which pyaleph reaches kubo. In a compose project these are names of services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpfsHosts {
    /// `ipfs.host`.
    pub host: Option<String>,
    /// `ipfs.pinning.host`. If it is set, files are added and pinned there.
    pub pinning: Option<String>,
}

/// Reads the hosts. They are empty if the file cannot be read or parsed.
pub fn ipfs_hosts(config: &Path) -> IpfsHosts {
    let text = read_bounded(config, FILE_BYTES_MAX)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or_else(IpfsHosts::default, |text| parse(&text))
}

fn parse(text: &str) -> IpfsHosts {
    let Ok(Some(top)) = yaml::read(text) else {
        return IpfsHosts::default();
    };
    let host = |node: Option<&YamlNode>| match &node?.get("host")?.value.value {
        YamlValue::Text(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let ipfs = top.get("ipfs").map(|entry| &entry.value);
    let pinning = ipfs
        .and_then(|ipfs| ipfs.get("pinning"))
        .map(|entry| &entry.value);
    IpfsHosts {
        host: host(ipfs),
        pinning: host(pinning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_kubo_are_read() {
        let hosts = |text: &str| {
            let IpfsHosts { host, pinning } = parse(text);
            (host.unwrap_or_default(), pinning.unwrap_or_default())
        };
        let both = "ipfs:\n  enabled: true\n  host: ipfs\n  port: 5001\n  pinning:\n    host: ipfs-pinning\n    port: 5001\n";
        assert_eq!(hosts(both), ("ipfs".into(), "ipfs-pinning".into()));
        assert_eq!(
            hosts("ipfs: {host: kubo, pinning: {host: null}}"),
            ("kubo".into(), String::new())
        );
        for text in ["", "ipfs:", "ipfs: []", "x: {host: y}", ": :", "a: [1"] {
            assert_eq!(hosts(text), (String::new(), String::new()), "{text}");
        }
    }
}
