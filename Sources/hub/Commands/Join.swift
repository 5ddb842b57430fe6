import ArgumentParser
import HubEngine
import Logging
import SyncCore
import SyncWire

struct Join: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Register this database as a branch and load it; resumes when it was cut.")

  @Argument(help: "What hub invite printed.") var token: String
  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Option(help: "This branch's name, for a reusable token (or HUB_OFFICE_NAME); else the token's.") var name: String?
  @Option(help: "Tables that hold rows already: refuse, merge them, or replace them by head's.")
  var existing = "refuse"
  @Flag(help: "Accept a server with fsync off: for trials only.") var allowUnsafeDatabase = false

  func run() async throws {
    let token = try BranchJoin.read(self.token)
    var logger = try daemon.logger()
    if daemon.logLevel == "info" { logger.logLevel = .warning }
    let join = BranchJoin(
      token: token, name: try name ?? setting("HUB_OFFICE_NAME") ?? token.office, options: options, broker: broker,
      daemon: daemon, existing: existing, allowsUnsafe: allowUnsafeDatabase, logger: logger)
    try await join.run()
  }
}
