import ArgumentParser
import Glibc
import HubEngine
import Logging
import PostgresStore
import RabbitTransport

struct Doctor: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check versions, privileges, settings, clock and broker; say how to mend each.")

  @OptionGroup var options: DatabaseOptions
  @OptionGroup var broker: BrokerOptions
  @OptionGroup var daemon: DaemonOptions
  @Flag(help: "First bring the schema of an earlier hub to this version; hub run does, too, if its role owns it.")
  var upgrade = false

  struct Finding {
    var check: String
    var isGood: Bool
    var text: String
    var mend: String?
  }

  func run() async throws {
    if upgrade { try upgradeSchema(options) { printError("note: \($0)") } }
    let session = try options.session()
    var findings: [Finding]
    var stored: String?
    var queueType = "classic"
    var role: OfficeIdentity?
    do {
      findings = try DatabaseCheckup.run(session).map {
        Finding(check: $0.check, isGood: $0.isGood, text: $0.text, mend: $0.mend)
      }
      stored = try HeadSetup.setting(session, "broker")
      queueType = try HeadSetup.setting(session, "queue_type") ?? queueType
      role = try? PostgresStore.readOffice(session)
    } catch let error as PostgresError {
      throw error.asHubError
    }
    findings.append(await checkBroker(stored: stored, queueType: queueType, office: role))
    findings.append(checkState())
    if options.json {
      let list = findings.map {
        JSONValue.fields([
          "id": .string($0.check), "ok": .bool($0.isGood), "text": .string($0.text), "mend": JSONValue($0.mend),
        ])
      }
      print(JSONValue.array(list))
    } else {
      for finding in findings {
        print("\(finding.isGood ? "ok  " : "FAIL")  \(finding.check): \(finding.text)")
        if let mend = finding.mend, !finding.isGood { print("      \(mend)") }
      }
    }
    let bad = findings.filter { !$0.isGood }
    guard bad.isEmpty else {
      throw HubError(.notReady, "\(bad.count) of \(findings.count) checks failed", hint: bad[0].mend)
    }
  }

  private func checkBroker(stored: String?, queueType: String, office: OfficeIdentity?) async -> Finding {
    func finding(_ isGood: Bool, _ text: String, mend: String? = nil) -> Finding {
      Finding(check: "broker", isGood: isGood, text: text, mend: mend)
    }
    do {
      let transport = try makeTransport(
        broker, stored: stored, name: "hub doctor", queueType: queueType,
        logger: Logger(label: "hub") { _ in SwiftLogNoOpLogHandler() })
      let facts = try await transport.look(
        at: office.map { $0.role == .branch ? .branch(office: $0.name) : .head(offices: []) })
      let queue = facts.queue.map { queue in
        let type = queue.type.map { "\($0.rawValue) " } ?? ""
        let difference = queue.difference.map { "; not as hub would declare it, but kept: \($0)" } ?? ""
        return ", \(type)queue \(queue.name): \(queue.messages) messages, \(queue.consumers) readers\(difference)"
      }
      return finding(
        facts.isSupported, "\(facts.product) \(facts.version)\(queue ?? "")", mend: "hub needs RabbitMQ 3.10 or later")
    } catch let error as TransportError {
      return finding(false, error.message, mend: error.asHubError.hint)
    } catch {
      return finding(false, "\(error)", mend: "pass --broker URL")
    }
  }

  private func checkState() -> Finding {
    do {
      let file = try HostFile(directory: daemon.stateDirectory(), database: "doctor")
      _ = file
      return Finding(check: "state directory", isGood: true, text: daemon.stateDirectory(), mend: nil)
    } catch {
      return Finding(check: "state directory", isGood: false, text: error.message, mend: error.hint)
    }
  }
}

/// Tells what it did, if anything.
func upgradeSchema(_ options: DatabaseOptions, tell: (String) -> Void) throws {
  guard let version = try options.transaction({ try Migrations.upgrade($0) }) else { return }
  tell("the hub schema was of version \(version), it is of version \(Migrations.latest) now")
}
