// MongoDB's roles for the database myhealth: mongosh "mongodb://ADMIN@reports.example/admin" mongodb-roles.js
// Then a user of each, with a password of its own: db.createUser({user: "mh_sync", pwd: passwordPrompt(), roles: ["myhealthSync"]})
const roles = {
  "myhealthMigrate": {
    "reports": ["createIndex", "listIndexes"],
    "users": ["createIndex", "listIndexes"],
    "audit_events": ["createIndex", "listIndexes"]
  },
  "myhealthSync": {
    "": ["listCollections"],
    "reports": ["find", "insert", "update", "remove", "createIndex", "listIndexes", "dropIndex"],
    "users": ["find", "insert", "update", "remove", "createIndex", "listIndexes"],
    "audit_events": ["find", "insert", "update", "remove", "createIndex", "listIndexes"],
    "sync_state": ["find", "insert", "update", "remove"],
    "sync_failures": ["find", "insert", "update", "remove"],
    "trends": ["find", "remove", "createIndex"]
  },
  "myhealthBrowse": {
    "reports": ["find", "listIndexes"],
    "users": ["find", "update", "listIndexes"],
    "audit_events": ["find", "insert", "update", "listIndexes"],
    "sync_state": ["find"],
    "trends": ["find", "insert", "update"]
  }
};
for (const [role, rights] of Object.entries(roles)) {
  const privileges = Object.entries(rights).map(
    ([collection, actions]) => ({resource: {db: "myhealth", collection}, actions}));
  db.getSiblingDB("admin").runCommand({createRole: role, privileges, roles: []});
}
