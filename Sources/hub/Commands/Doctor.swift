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

  struct Finding {
    var check: String
    var isGood: Bool
    var text: String
    var mend: String?
  }

  func run() async throws {
    let session = try options.session()
    var findings: [Finding]
    var stored: String?
    var role: OfficeIdentity?
    do {
      findings = try DatabaseCheckup.run(session).map {
        Finding(check: $0.check, isGood: $0.isGood, text: $0.text, mend: $0.mend)
      }
      stored = try HeadSetup.setting(session, "broker")
      role = try? PostgresStore.readOffice(session)
    } catch let error as PostgresError {
      throw error.asHubError
    }
    findings.append(await checkBroker(stored: stored, office: role))
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

  private func checkBroker(stored: String?, office: OfficeIdentity?) async -> Finding {
    do {
      let transport = try makeTransport(
        broker, stored: stored, name: "hub doctor", queueType: "classic",
        logger: Logger(label: "hub") { _ in SwiftLogNoOpLogHandler() })
      let session = try await transport.open(
        office?.role == .branch ? .branch(office: office?.name ?? "") : .head(offices: []))
      await session.close()
      return Finding(check: "broker", isGood: true, text: "reached, logged in, queue there", mend: nil)
    } catch let error as TransportError {
      if error.kind == .queueInUse {
        return Finding(check: "broker", isGood: true, text: "reached; the daemon holds the queue", mend: nil)
      }
      return Finding(check: "broker", isGood: false, text: error.message, mend: error.asHubError.hint)
    } catch {
      return Finding(check: "broker", isGood: false, text: "\(error)", mend: "pass --broker URL")
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
