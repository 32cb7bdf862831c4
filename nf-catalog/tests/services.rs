//! The services of the catalog as they are drawn.

use std::fs;
use std::path::Path;

use gantry_catalog::{Catalog, Graph};

fn catalog() -> Catalog {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut add = |directory: &Path| {
        for file in fs::read_dir(directory)
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_file())
        {
            let path = file.path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(path).unwrap()));
        }
    };
    for package in fs::read_dir(root.join("packages"))
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
    {
        add(&package.path());
    }
    add(&root.join("services"));
    let texts = files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    Catalog::from_files(texts, |job| job.run(|_| ())).unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

const IMS: &str = "\
signalling
\x20 dns             DNS
\x20 hss             HSS
\x20 diameter-agent  DRA            dns -> dns, Cx/S6a -> hss
\x20 mmtel-as        MMTEL-AS       dns -> dns
\x20 i-cscf          I-CSCF         dns -> dns, Cx -> diameter-agent
\x20 subscriber-db   subscriber-db
\x20 s-cscf          S-CSCF         dns -> dns, Mw -> i-cscf, Cx -> diameter-agent, ISC -> mmtel-as,
\x20                                mysql -> subscriber-db
\x20 p-cscf          P-CSCF         Gm <- outside, dns -> dns, Mw -> i-cscf, Iq -> media,
\x20                                mysql -> subscriber-db
media
\x20 media           IMS-AGW
left out: IPsec (sec-agree), Rx, IPv6, emergency calls, SRVCC, charging
";

const EPC: &str = "\
signalling
\x20 dns             DNS
\x20 hss             HSS
\x20 pcrf            PCRF
\x20 diameter-agent  DRA   dns -> dns, Cx/S6a -> hss, Gx -> pcrf
\x20 mme             MME   S1-MME <- outside, dns -> dns, S6a -> diameter-agent, S11 -> sgw,
\x20                       S5 by way of S11 -> pgw
data
\x20 pgw             PGW   SGi <- outside, dns -> dns, Gx -> diameter-agent, owns uePool
\x20 sgw             SGW   S1-U <- outside, S5 -> pgw
left out: NAS and S1AP, dedicated bearers, IPv6, charging
";

const DATA: &str = "\
signalling
\x20 dns   DNS
data
\x20 ggsn  GGSN  Gn <- outside, Gi <- outside, dns -> dns, owns uePool
left out: HLR and GSUP, IPv6, charging
";

const VOLTE: &str = "\
signalling
\x20 dns             DNS
\x20 hss             HSS
\x20 pcrf            PCRF
\x20 diameter-agent  DRA       dns -> dns, Cx/S6a -> hss, Gx -> pcrf
\x20 mme             MME       S1-MME <- outside, dns -> dns, S6a -> diameter-agent, S11 -> sgw,
\x20                           S5 by way of S11 -> pgw
\x20 mmtel-as        MMTEL-AS  dns -> dns
\x20 i-cscf          I-CSCF    dns -> dns, Cx -> diameter-agent
\x20 s-cscf          S-CSCF    dns -> dns, Mw -> i-cscf, Cx -> diameter-agent, ISC -> mmtel-as
\x20 p-cscf          P-CSCF    Gm <- outside, dns -> dns, Mw -> i-cscf, Iq -> media
media
\x20 media           IMS-AGW
data
\x20 pgw             PGW       SGi <- outside, dns -> dns, Gx -> diameter-agent, owns uePool
\x20 sgw             SGW       S1-U <- outside, S5 -> pgw
left out: IPsec (sec-agree), Rx and dedicated bearers, IPv6, emergency calls, SRVCC, charging,
\x20         NAS and S1AP
";

fn drawn(service: &str) -> String {
    let catalog = catalog();
    Graph::of(&catalog, &catalog.services[service]).text()
}

#[test]
fn ims() {
    assert_eq!(drawn("ims"), IMS);
}

#[test]
fn epc() {
    assert_eq!(drawn("epc"), EPC);
}

#[test]
fn data_of_2g_and_3g() {
    assert_eq!(drawn("2g3g-data"), DATA);
}

#[test]
fn volte_is_a_dozen() {
    assert_eq!(drawn("volte"), VOLTE);
    let catalog = catalog();
    let graph = Graph::of(&catalog, &catalog.services["volte"]);
    assert_eq!(graph.functions.len(), 12);
    let svg = graph.svg();
    assert_eq!(svg.matches("<rect").count(), 12);
    assert_eq!(svg.matches("<line").count(), graph.links.len());
    assert_eq!(svg.matches("<polyline").count(), 4, "Gm, S1-MME, S1-U, SGi");
    for said in ["owns uePool", "left out: IPsec", ">dns</text>", ">S1-U</text>"] {
        assert!(svg.contains(said), "{said}");
    }
}
