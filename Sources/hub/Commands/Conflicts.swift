import ArgumentParser
import HubEngine
import PostgresStore
import SyncCore

/// The conflict inbox: what offices wrote without knowing of each other, and what became of it.
struct Conflicts: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Conflicts that were decided: list and show them, reverse one, try another policy.",
    subcommands: [List.self, Show.self, Resolve.self, Try.self, Keep.self], defaultSubcommand: List.self)

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "List them: at head all, at a branch those in which a write of its own won or lost.")
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      let entries = try options.transaction { session in
        _ = try PostgresStore.readOffice(session)
        return try ConflictEntry.list(session)
      }
      if options.json { return print(JSONValue.array(entries.map(\.json))) }
      guard !entries.isEmpty else { return print("no conflicts") }
      printTable(
        ["ID", "AT", "TABLE", "KEY", "TYPE", "WINNER", "LOSER", "BY", "REVIEWED"],
        entries.map {
          [
            String($0.id), $0.at, $0.table, $0.keyText, $0.type, $0.winner.office, $0.loser.office, $0.reason,
            $0.kept.map { "kept \($0)" } ?? "no",
          ]
        })
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show one: both rows side by side, and why it was decided so.")
    @Argument(help: "The conflict's number.") var id: Int64
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      try options.transaction { session in
        _ = try PostgresStore.readOffice(session)
        let entry = try ConflictEntry.find(session, id)
        if options.json { return print(entry.json) }
        let table = try TableInfo.loadAll(session).first { $0.name == entry.table }
        Self.explain(entry)
        Self.compare(entry, table, try ActorNames(session))
        let again = entry.headWon ? "branch" : "head"
        print(
          entry.reviewedAt.map { "\nkept \(entry.kept ?? ""), reviewed \($0)" }
            ?? "\nnot reviewed; hub conflicts resolve \(id) --keep \(again) reverses it")
      }
    }

    private static func explain(_ entry: ConflictEntry) {
      print("conflict \(entry.id): \(entry.type) in \(entry.table), \(entry.keyText), at \(entry.at)")
      print("  \(entry.happened).")
      print("  \(entry.explanation)\n")
    }

    /// A `*` marks what differs.
    private static func compare(_ entry: ConflictEntry, _ table: TableInfo?, _ names: ActorNames) {
      let (head, branch) = (entry.headCopy, entry.branchCopy)
      func title(_ copy: ConflictEntry.Copy, _ won: Bool) -> String { "\(copy.office)\(won ? " (won)" : "")" }
      var lines = [
        ["", "written by", title(head, entry.headWon), title(branch, !entry.headWon)],
        ["", "written at", head.writtenAt, branch.writtenAt],
        ["", "has seen", names.text(head.vector), names.text(branch.vector)],
      ]
      if !head.isAlive || !branch.isAlive {
        lines.append(["*", "row", head.isAlive ? "there" : "deleted", branch.isAlive ? "there" : "deleted"])
      }
      for name in entry.columns(of: table) {
        let (mine, theirs) = (cell(head, name), cell(branch, name))
        let differs = head.isAlive && branch.isAlive && mine != theirs
        lines.append([differs ? "*" : "", name, shortened(mine), shortened(theirs)])
      }
      printTable(["", "", "HEAD'S COPY", "BRANCH'S COPY"], lines)
    }

    private static func cell(_ copy: ConflictEntry.Copy, _ name: String) -> String {
      guard let row = copy.row else { return "" }
      guard let value = row[name] else { return "(no such column)" }
      return value ?? "NULL"
    }
  }

  struct Resolve: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Say which row stands (head): it is written as any other write of head and reaches every office.",
      discussion: """
        --keep head is the copy that head held when the other arrived, --keep branch the one that arrived, whoever wrote \
        them. A file holds the row as a JSON object with every column of the table, values as texts or numbers; null \
        deletes the row. A row that changed since the conflict is not overwritten, unless --force is given.
        """)
    @Argument(help: "The conflict's number.") var id: Int64
    @Option(help: "head, branch, or a JSON file with the row.") var keep: String
    @Flag(help: "Overwrite a row that changed since the conflict.") var force = false
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      let kept: ConflictResolution.Kept =
        switch keep {
        case "head": .head
        case "branch": .branch
        default: .row(try readFile(keep))
        }
      let outcome = try options.transaction { session in
        _ = try HeadSetup.requireHead(session, for: "conflicts resolve")
        return try ConflictResolution.resolve(session, id, keep: kept, force: force)
      }
      if options.json {
        return print(
          JSONValue.fields(["id": .integer(id), "kept": .string(keep), "outcome": .string(outcome.rawValue)]))
      }
      switch outcome {
      case .written: print("conflict \(id): \(keep) is kept; the row was written and goes to every office")
      case .unchanged: print("conflict \(id): \(keep) is kept; the row is like that already")
      case .changedSince: print("conflict \(id): \(keep) is kept; what was written since stays as it is")
      }
    }
  }

  struct Keep: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "How long entries are kept (head); without an option, say it.",
      discussion: """
        Older entries, and the oldest above the number, are dropped at head within a minute and at the branches after \
        that. 0 keeps without a bound.
        """)
    @Option(help: "Days; 400 unless set.") var days: Int?
    @Option(help: "Entries; 1000000 unless set.") var entries: Int?
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      guard (days ?? 0) >= 0, (entries ?? 0) >= 0 else {
        throw HubError(.usage, "a bound is not negative", hint: "0 keeps without a bound")
      }
      let kept = try options.transaction { session -> ConflictRetention in
        _ = try HeadSetup.requireHead(session, for: "conflicts keep")
        var kept = try ConflictRetention.read(session)
        kept.days = days ?? kept.days
        kept.entries = entries ?? kept.entries
        if days != nil || entries != nil { try kept.save(session) }
        return kept
      }
      if options.json {
        return print(JSONValue.fields(["days": JSONValue(kept.days), "entries": JSONValue(kept.entries)]))
      }
      func bound(_ number: Int, _ what: String) -> String {
        number == 0 ? "any number of \(what)" : "\(number) \(what)"
      }
      print("kept are \(bound(kept.days, "days")), and \(bound(kept.entries, "entries"))")
    }
  }

  struct Try: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print which recorded conflicts would have ended differently under another policy; changes nothing.")
    @Argument(help: "Only those of this table.") var table: String?
    @Option(help: "latest, head or branch.") var policy: String
    @Option(help: "Of an update and a concurrent delete: update or delete wins. As recorded when not given.")
    var onDelete: String?
    @OptionGroup var options: DatabaseOptions

    func run() throws {
      guard let conflict = ConflictPolicy(rawValue: policy), conflict != .function else {
        throw HubError(.usage, "--policy \(policy) cannot be tried", hint: "use latest, head or branch")
      }
      let delete = onDelete.flatMap { DeletePolicy(rawValue: $0) }
      guard onDelete == nil || delete != nil else {
        throw HubError(.usage, "--on-delete \(onDelete ?? "") is not known", hint: "use update or delete")
      }
      let entries = try options.transaction { session -> [ConflictEntry] in
        _ = try PostgresStore.readOffice(session)
        guard let table else { return try ConflictEntry.list(session) }
        let (schema, relation) = try TrackCheck.resolve(session, table)
        let name = TableInfo.catalogueName(schema, relation)
        return try ConflictEntry.list(session).filter { $0.table == name }
      }
      let changed = entries.compactMap { ConflictTrial($0, conflict, onDelete: delete) }.filter(\.isDifferent)
      if options.json { return print(JSONValue.array(changed.map(Self.json))) }
      print("\(changed.count) of \(entries.count) conflicts would have ended differently")
      guard !changed.isEmpty else { return }
      printTable(
        ["ID", "TABLE", "KEY", "TYPE", "WON", "WOULD WIN", "BY"],
        changed.map {
          [
            String($0.entry.id), $0.entry.table, $0.entry.keyText, $0.entry.type, $0.entry.winner.office,
            $0.winner.office, $0.reason.rawValue,
          ]
        })
    }

    private static func json(_ trial: ConflictTrial) -> JSONValue {
      .fields([
        "id": .integer(trial.entry.id), "table": .string(trial.entry.table), "key": .string(trial.entry.keyText),
        "type": .string(trial.entry.type), "winner": .string(trial.entry.winner.office),
        "would_win": .string(trial.winner.office), "reason": .string(trial.reason.rawValue),
      ])
    }
  }
}
