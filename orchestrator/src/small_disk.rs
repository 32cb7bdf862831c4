//! For tests of what happens without space.

use std::path::Path;

/// A small disk of its own, until it is dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a loud word, without the right to mount one.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                println!("SKIPPED: a tmpfs cannot be mounted: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Others take all that is left of it.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.0.path().join("filler")).unwrap();
        while filler.write(&[1; 4096]).is_ok() {}
        assert!(
            std::fs::write(self.0.path().join("another"), [1; 4096]).is_err(),
            "it is full"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
