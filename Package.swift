// swift-tools-version: 6.2
import PackageDescription

/// One set of rules for every target: Swift 6, warnings are errors, imports say what they export.
let house: [SwiftSetting] = [
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
  name: "hub",
  products: [.executable(name: "hub", targets: ["hub"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "CRabbitMQ", pkgConfig: "librabbitmq", providers: [.apt(["librabbitmq-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

    .target(name: "SyncCore", swiftSettings: house),
    .target(
      name: "SyncWire",
      dependencies: ["SyncCore", "CZstd", .product(name: "SwiftProtobuf", package: "swift-protobuf")],
      exclude: ["envelope.proto"],
      swiftSettings: house),
    .target(name: "SyncSimulation", dependencies: ["SyncCore"], swiftSettings: house),
    .target(
      name: "HubEngine",
      dependencies: ["SyncCore", "SyncWire", "CLinux", .product(name: "Logging", package: "swift-log")],
      swiftSettings: house),
    .target(
      name: "PostgresStore",
      dependencies: ["HubEngine", "SyncCore", "CLibPQ", .product(name: "Logging", package: "swift-log")],
      swiftSettings: house),
    .target(
      name: "RabbitTransport",
      dependencies: ["HubEngine", "SyncCore", "CRabbitMQ", .product(name: "Logging", package: "swift-log")],
      swiftSettings: house),
    .target(
      name: "HubDashboard",
      dependencies: [
        "HubEngine", .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ],
      swiftSettings: house),
    .executableTarget(
      name: "hub",
      dependencies: [
        "CLinux", "HubDashboard", "HubEngine", "PostgresStore", "RabbitTransport", "SyncCore", "SyncWire",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
      ],
      swiftSettings: house),
    .executableTarget(
      name: "simulate", dependencies: ["SyncSimulation", "SyncCore"], swiftSettings: house),

    .testTarget(name: "SyncCoreTests", dependencies: ["SyncCore"], swiftSettings: house),
    .testTarget(
      name: "SyncSimulationTests", dependencies: ["SyncSimulation", "SyncCore"], swiftSettings: house),
    .testTarget(name: "SyncWireTests", dependencies: ["SyncWire", "SyncCore"], swiftSettings: house),
    .testTarget(
      name: "RabbitTransportTests",
      dependencies: ["RabbitTransport", "HubEngine", "CRabbitMQ", .product(name: "Logging", package: "swift-log")],
      swiftSettings: house),
    .testTarget(
      name: "PostgresStoreTests", dependencies: ["PostgresStore", "HubEngine", "SyncCore", "CLibPQ"],
      swiftSettings: house),
    .testTarget(name: "HubDashboardTests", dependencies: ["HubDashboard", "HubEngine"], swiftSettings: house),
    .testTarget(name: "EndToEndTests", dependencies: ["CLibPQ"], swiftSettings: house),
  ],
  swiftLanguageModes: [.v6]
)
