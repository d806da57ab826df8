//! What lies over a container's layers, so that they do not show it: volumes, bind mounts, tmpfs,
//! and the engine's own files.
//!
//! The engine's record tells what a container is started with, and where each thing comes from. What
//! lies over one union, by its record and by the kernel, is found in `covered`.

use serde::Serialize;

use crate::bytes::Bytes;

/// One thing that lies over layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Cover {
    pub kind: CoverKind,
    /// The volume's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its content is, as a path of the host; none where nobody says. Of an overlay it is
    /// what lies below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Bytes>,
    /// Where an overlay keeps what was changed in it, as a path of the host; none where nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper: Option<Bytes>,
    /// Where it begins, as a path of the container.
    pub path: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CoverKind {
    Volume,
    Bind,
    Tmpfs,
    /// A volume or a directory of the host, below an overlay that takes all changes: Podman's `:O`.
    Overlay,
    /// What the engine itself puts into every container: `/etc/hosts`, `/dev`, `/proc`.
    Engine,
}

/// The files that engines make for each container.
pub const ENGINE_FILES: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
/// The directories of the kernel's that engines mount in every container.
pub const KERNEL_DIRECTORIES: [&str; 3] = ["/dev", "/proc", "/sys"];
/// File systems that have no content of anybody's.
const KERNEL_TYPES: [&[u8]; 7] = [
    b"proc",
    b"sysfs",
    b"cgroup",
    b"cgroup2",
    b"devpts",
    b"mqueue",
    b"devtmpfs",
];

impl Cover {
    pub fn new(kind: CoverKind, path: impl Into<Bytes>) -> Cover {
        let path: Bytes = path.into();
        Cover {
            kind,
            name: None,
            source: None,
            upper: None,
            path: Bytes::absolute(path.components()),
        }
    }

    /// With where its content is; an empty path says nothing.
    pub fn at(self, source: &str) -> Cover {
        let source = Some(source).filter(|source| source.starts_with('/'));
        Cover {
            source: source.map(Bytes::from),
            ..self
        }
    }

    /// A volume; a name that is empty says nothing.
    pub fn volume(path: impl Into<Bytes>, name: &str) -> Cover {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Cover {
            name,
            ..Cover::new(CoverKind::Volume, path)
        }
    }

    /// The same below an overlay that takes all changes; an `upper` that is empty says nothing.
    pub fn below_overlay(self, upper: &str) -> Cover {
        let upper = Some(upper).filter(|upper| upper.starts_with('/'));
        Cover {
            kind: CoverKind::Overlay,
            upper: upper.map(Bytes::from),
            ..self
        }
    }

    /// Whether an absolute path lies on or below it.
    pub fn is_over(&self, path: &Bytes) -> bool {
        let (own, path) = (self.path.as_bytes(), path.as_bytes());
        let rest = path.strip_prefix(own);
        own == b"/" || rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }

    /// What is mounted at a place, by the type of the file system and by where it comes from.
    pub fn of_mount(fs_type: &[u8], path: impl Into<Bytes>, source: &str) -> Cover {
        let path: Bytes = path.into();
        let is_engines =
            KERNEL_TYPES.contains(&fs_type) || is_engines_place(&path) || is_engines_file(source);
        if is_engines {
            let source = if fs_type == b"tmpfs" { "" } else { source };
            return Cover::new(CoverKind::Engine, path).at(source);
        }
        if fs_type == b"tmpfs" {
            return Cover::new(CoverKind::Tmpfs, path);
        }
        match volume_name(source) {
            Some(name) => Cover::volume(path, name).at(source),
            None => Cover::new(CoverKind::Bind, path).at(source),
        }
    }

    /// In two words: `volume pgdata`.
    pub fn title(&self) -> String {
        let kind = match self.kind {
            CoverKind::Volume => "volume",
            CoverKind::Bind => "bind",
            CoverKind::Tmpfs => "tmpfs",
            CoverKind::Overlay => "overlay",
            CoverKind::Engine => "engine",
        };
        match &self.name {
            Some(name) => format!("{kind} {name}"),
            None => kind.to_owned(),
        }
    }

    /// That the layers do not show what is there.
    pub fn words(&self) -> String {
        let path = &self.path;
        let at = |source: &Bytes| format!(", at {source}");
        let at = self.source.as_ref().map(at).unwrap_or_default();
        let volume =
            |name: &str| format!("the volume {}{at}", crate::bytes::escape(name.as_bytes()));
        let what = match (self.kind, &self.name, &self.source) {
            (CoverKind::Volume, Some(name), _) => volume(name),
            (CoverKind::Overlay, name, source) => {
                let below = match (name, source) {
                    (Some(name), _) => format!(" over {}", volume(name)),
                    (None, Some(source)) => format!(" over {source}"),
                    (None, None) => String::new(),
                };
                let written = |upper: &Bytes| format!(", with its changes in {upper}");
                let written = self.upper.as_ref().map(written).unwrap_or_default();
                format!("an overlay{below}{written}")
            }
            (CoverKind::Volume, None, _) => format!("a volume{at}"),
            (CoverKind::Bind, _, Some(source)) => format!("a bind mount of {source}"),
            (CoverKind::Bind, _, None) => "a mount of something else".to_owned(),
            (CoverKind::Tmpfs, ..) => "a tmpfs".to_owned(),
            (CoverKind::Engine, ..) => format!("the engine's own{at}"),
        };
        format!("{path} is {what}; layers do not show it")
    }
}

/// Whether a path is what engines give to every container.
fn is_engines_place(path: &Bytes) -> bool {
    let is_below = |of: &str| path.lies_in(&Bytes::from(of));
    let mut files = ENGINE_FILES.iter();
    files.any(|file| path.as_bytes() == file.as_bytes())
        || KERNEL_DIRECTORIES.iter().any(|of| is_below(of))
}

/// Whether it is one of the files that podman keeps beside a container's layer.
///
/// ```text
/// .../overlay-containers/<id>/userdata/run/.containerenv
/// ```
fn is_engines_file(source: &str) -> bool {
    source.contains("-containers/") && source.contains("/userdata/")
}

/// The volume that a directory of the host is, by its path.
///
/// ```text
/// .../volumes/[<namespace>/]<name>/_data                  docker, podman, nerdctl
/// .../pods/<uid>/volumes/kubernetes.io~<kind>/<name>      the kubelet
/// ```
pub(super) fn volume_name(source: &str) -> Option<&str> {
    let (_, inside) = source.rsplit_once("/volumes/")?;
    if let Some(of_pod) = inside.strip_prefix("kubernetes.io~") {
        return of_pod.split('/').nth(1);
    }
    inside.strip_suffix("/_data")?.rsplit('/').next()
}

/// What an engine puts over every container's layers.
pub fn engines_own() -> impl Iterator<Item = Cover> {
    let places = ENGINE_FILES.into_iter().chain(KERNEL_DIRECTORIES);
    places.map(|path| Cover::new(CoverKind::Engine, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_is() {
        let cases = [
            ("bind", "/etc/hosts", "/x/hosts", CoverKind::Engine, None),
            ("proc", "/proc", "proc", CoverKind::Engine, None),
            ("tmpfs", "/dev/shm", "shm", CoverKind::Engine, None),
            ("tmpfs", "/scratch", "tmpfs", CoverKind::Tmpfs, None),
            ("bind", "/srv", "/home/me", CoverKind::Bind, None),
            (
                "bind",
                "/srv",
                "/var/lib/nerdctl/1935db59/volumes/default/pg/_data",
                CoverKind::Volume,
                Some("pg"),
            ),
            (
                "bind",
                "/srv",
                "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/cache",
                CoverKind::Volume,
                Some("cache"),
            ),
        ];
        for (fs_type, path, source, kind, name) in cases {
            let cover = Cover::of_mount(fs_type.as_bytes(), path, source);
            assert_eq!((cover.kind, cover.name.as_deref()), (kind, name), "{path}");
        }
    }
}
