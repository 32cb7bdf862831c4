//! Compiles the proto files with protox, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["gantry/node/v1/service.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".gantry.node.v1.SessionFrame")
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
