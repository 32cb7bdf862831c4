//! Config and manifest of an image.

use std::fs::File;
use std::io::{self, Write};

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder,
};

use super::layer::Layer;
use super::{BuildError, Job};
use crate::digest::Digest;
use crate::recipe::RecipeConfig;
use crate::store::{Image, NewImage, StoreError, canonical_json};

/// `EPOCH_S` as an image says it.
const CREATED: &str = "2000-01-01T00:00:00Z";

impl Job<'_> {
    /// Writes config and manifest next to the layers.
    pub(super) fn documents(&self, layers: &[Layer], recipe_hash: String) -> Result<NewImage, BuildError> {
        let oci_config = oci_config(&self.recipe.config, layers);
        let config = canonical_json(&oci_config);
        let config_digest = self.store_document(&config)?;
        let descriptors: Vec<Descriptor> = layers
            .iter()
            .map(|l| Descriptor::new(MediaType::ImageLayerZstd, l.size_bytes, oci_digest(&l.digest)))
            .collect();
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(Descriptor::new(
                MediaType::ImageConfig,
                config.len() as u64,
                oci_digest(&config_digest),
            ))
            .layers(descriptors)
            .build()
            .expect("all required fields are set");
        let document = canonical_json(&manifest);
        let digest = self.store_document(&document)?;
        let mut blobs: Vec<Digest> = layers.iter().map(|l| l.digest.clone()).collect();
        blobs.extend([config_digest, digest.clone()]);
        let name = self.recipe.name.to_string();
        let image = Image::of(
            Some(name.clone()),
            digest,
            &manifest,
            oci_config,
            self.store.limits(),
        );
        Ok(NewImage {
            name: self.recipe.name.clone(),
            image: image.map_err(|why| StoreError::Invalid {
                what: "recipe",
                image: name,
                why,
            })?,
            size_bytes: document.len() as u64,
            blobs,
            recipe_hash: Some(recipe_hash),
        })
    }

    fn store_document(&self, bytes: &[u8]) -> Result<Digest, BuildError> {
        let digest = Digest::of(bytes);
        let write = || -> io::Result<()> {
            let mut file = File::create(self.scratch.path().join(digest.hex()))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(self.io("write a document of the image"))?;
        Ok(digest)
    }
}

fn oci_digest(digest: &Digest) -> oci_spec::image::Digest {
    digest
        .to_string()
        .parse()
        .expect("a sha256 digest is an OCI digest")
}

fn oci_config(c: &RecipeConfig, layers: &[Layer]) -> ImageConfiguration {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let mut run = ConfigBuilder::default().build().expect("no field is required");
    run.set_entrypoint(some(&c.entrypoint));
    run.set_cmd(some(&c.cmd));
    run.set_env(some(&c.env));
    run.set_user(text(&c.user));
    run.set_working_dir(text(&c.working_dir));
    run.set_stop_signal(text(&c.stop_signal));
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    let history: Vec<_> = layers
        .iter()
        .map(|l| {
            let row = HistoryBuilder::default()
                .created(CREATED)
                .created_by(format!("gantry image build: {}", l.what));
            row.build().expect("no field is required")
        })
        .collect();
    ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(Arch::default())
        .os(Os::Linux)
        .config(run)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(diff_ids)
                .build()
                .expect("both are set"),
        )
        .history(history)
        .build()
        .expect("all required fields are set")
}
