//! Links the agent at a fixed address. A position-independent executable writes its relocations when it starts: about 1.8 MB
//! of private memory in each shim, which is this binary again, once a pod. At a fixed address those pages are the file's, and
//! shared by all shims (2.0 MB -> 0.3 MB private). Heap, stack and libraries stay at random addresses.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=gantry-nodeagent=-no-pie");
}
