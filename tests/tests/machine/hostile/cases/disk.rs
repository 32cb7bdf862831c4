//! Pods and images that fill the disk.

use std::fs;
use std::io::{self, Read};

use anyhow::{Result, ensure};
use gantry_images::Digest;
use gantry_tests::busybox;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{Case, Harm, Tenant};

/// What the tenant sees without the protection.
const GOES_ON: Harm = Harm::Told("Running");
/// What the image's only file has.
const BOMB_BYTES: u64 = 160 << 20;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an emptyDir of 1 GiB",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| fill(tenant, &write(tenant, "/v/big"), None),
        told: "Evicted: Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\".",
        harm: GOES_ON,
    },
    Case {
        name: "a claim of 10 MiB with 1 GiB in it",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| {
            let size = json!({"requests": {"storage": "10Mi"}});
            let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": size});
            let claim = json!({"metadata": {"name": "data"}, "spec": spec});
            tenant.make("persistentvolumeclaims", &claim)?;
            let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
            fill_volume(tenant, &write(tenant, "/v/big"), None, &volume)
        },
        told: "Evicted: Usage of PersistentVolumeClaim \"data\" exceeds its size \"10Mi\".",
        harm: GOES_ON,
    },
    Case {
        name: "a file of 1 GiB",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| fill(tenant, &write(tenant, "/big"), Some("20Mi")),
        told: "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 20Mi.",
        harm: GOES_ON,
    },
    Case {
        name: "a deleted file of 1 GiB that is kept open",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| {
            let write = format!("exec 5>/big; busybox rm /big; {}", write(tenant, "/dev/fd/5"));
            fill(tenant, &write, Some("20Mi"))
        },
        told: "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 20Mi.",
        harm: GOES_ON,
    },
    Case {
        name: "logs without end",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| fill(tenant, "busybox yes a line of a log", Some("9Mi")),
        told: "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 9Mi.",
        harm: GOES_ON,
    },
    Case {
        name: "folders in folders in folders",
        kind: "disk",
        protection: "ephemeral-storage",
        attack: |tenant| {
            let nest = "cd /; for i in $(busybox seq 200); do busybox mkdir d; cd d; done";
            fill(tenant, nest, None)
        },
        told: "Evicted: Pod has more than 1000000 files and directories",
        harm: GOES_ON,
    },
    Case {
        name: "an image of a few kB that unpacks to 160 MiB",
        kind: "disk",
        protection: "image-space",
        attack: image_bomb,
        told: "are kept for everything else",
        harm: Harm::Told(": 0 MiB are free"),
    },
];

fn write(tenant: &Tenant<'_>, path: &str) -> String {
    format!(
        "busybox dd if=/dev/zero of={path} bs=1M count={}",
        tenant.size(64, 1024)
    )
}

/// A pod that runs `script`, and how it ends; that it runs if it does not end.
fn fill(tenant: &Tenant<'_>, script: &str, limit: Option<&str>) -> Result<String> {
    let volume = json!({"name": "v", "emptyDir": {"sizeLimit": "10Mi"}});
    fill_volume(tenant, script, limit, &volume)
}

fn fill_volume(
    tenant: &Tenant<'_>,
    script: &str,
    limit: Option<&str>,
    volume: &serde_json::Value,
) -> Result<String> {
    let limits = limit.map_or(json!({}), |limit| json!({"ephemeral-storage": limit}));
    let container = json!({"name": "c", "image": busybox::IMAGE, "args": [format!("{script}; sleep 10000")],
        "resources": {"limits": limits}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1, "volumes": [volume]});
    tenant.make("pods", &json!({"metadata": {"name": "filler"}, "spec": spec}))?;
    let status = || Some(tenant.get("pods/filler").ok()?["status"].take());
    let ended = || status().filter(|status| status["phase"] == "Failed");
    let seen = tenant
        .wait("its end", ended)
        .ok()
        .or_else(status)
        .unwrap_or_default();
    let text = |field: &str| seen[field].as_str().unwrap_or_default().to_owned();
    match text("reason").as_str() {
        "" => Ok(text("phase")),
        reason => Ok(format!("{reason}: {}", text("message"))),
    }
}

/// Somebody takes it over by hand, with a disk of 100 MiB: nothing else is on it, so that nobody waits for the space.
fn image_bomb(tenant: &Tenant<'_>) -> Result<String> {
    let place = tempfile::tempdir()?;
    let layer = zeros()?;
    let packed = zstd::encode_all(&layer[..], 1)?;
    ensure!(packed.len() < 64 << 10, "it has {} bytes", packed.len());
    let layout = busybox::layout_of(
        place.path(),
        "bomb:1",
        "layer.v1.tar+zstd",
        &packed,
        &Digest::of(&layer),
    )?;
    let disk = place.path().join("disk");
    fs::create_dir(&disk)?;
    let none: Option<&str> = None;
    mount(
        none,
        &disk,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=100m,mode=700"),
    )?;
    let operator = tenant.gantry.beside(disk.clone());
    let output = operator.output(&["image", "import", &layout.to_string_lossy()]);
    umount2(&disk, MntFlags::MNT_DETACH)?;
    Ok(String::from_utf8_lossy(&output?.stderr).into_owned())
}

/// A layer's tar with one large file in it.
fn zeros() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(BOMB_BYTES);
    tar.append_data(&mut header, "zeros", io::repeat(0).take(BOMB_BYTES))?;
    Ok(tar.into_inner()?)
}
