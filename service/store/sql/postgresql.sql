-- find_history
SELECT 'customer' AS kind, customers.profile AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, customers.create_time AS part_5, customers.version AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM customers
WHERE customers.customer_key = %(customer_key)s::VARCHAR UNION ALL SELECT 'contact' AS kind, contacts.decision_id AS part_0, contacts.channel AS part_1, contacts.topic AS part_2, contacts.category AS part_3, CAST(NULL AS VARCHAR) AS part_4, contacts.step AS part_5, contacts.start_time AS part_6, contacts.end_time AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM contacts
WHERE contacts.customer_key = %(customer_key)s::VARCHAR AND contacts.start_time > %(contacts_after)s::BIGINT AND contacts.is_open = %(is_open)s UNION ALL SELECT 'order' AS kind, CAST(NULL AS VARCHAR) AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.occur_time AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time > %(orders_after)s::BIGINT AND outcomes.type IN ('order', 'store_purchase') UNION ALL SELECT anon_1.kind, anon_1.part_0, anon_1.part_1, anon_1.part_2, anon_1.part_3, anon_1.part_4, anon_1.part_5, anon_1.part_6, anon_1.part_7, anon_1.part_8, anon_1.part_9, anon_1.part_10
FROM (SELECT 'activity' AS kind, outcomes.decision_id AS part_0, outcomes.type AS part_1, outcomes.event_id AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.step AS part_5, outcomes.occur_time AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time > %(activity_after)s::BIGINT AND outcomes.occur_time <= %(until)s::BIGINT AND outcomes.type IN ('visit', 'seen', 'opened', 'clicked', 'order', 'store_purchase') AND NOT outcomes.machine_generated ORDER BY outcomes.occur_time DESC, outcomes.event_id
 LIMIT %(most)s OFFSET 0) AS anon_1 UNION ALL SELECT 'pause' AS kind, pauses.channel AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM pauses UNION ALL SELECT 'exposure' AS kind, exposures.experiment AS part_0, exposures.variant AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, exposures.probability AS part_10
FROM exposures
WHERE exposures.customer_key = %(customer_key)s::VARCHAR UNION ALL SELECT 'experiment' AS kind, experiments.experiment AS part_0, experiments.state AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, experiments.exposure AS part_10
FROM experiments

-- find_history_and_budgets
SELECT 'customer' AS kind, customers.profile AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, customers.create_time AS part_5, customers.version AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM customers
WHERE customers.customer_key = %(customer_key)s::VARCHAR UNION ALL SELECT 'contact' AS kind, contacts.decision_id AS part_0, contacts.channel AS part_1, contacts.topic AS part_2, contacts.category AS part_3, CAST(NULL AS VARCHAR) AS part_4, contacts.step AS part_5, contacts.start_time AS part_6, contacts.end_time AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM contacts
WHERE contacts.customer_key = %(customer_key)s::VARCHAR AND contacts.start_time > %(contacts_after)s::BIGINT AND contacts.is_open = %(is_open)s UNION ALL SELECT 'order' AS kind, CAST(NULL AS VARCHAR) AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.occur_time AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time > %(orders_after)s::BIGINT AND outcomes.type IN ('order', 'store_purchase') UNION ALL SELECT anon_1.kind, anon_1.part_0, anon_1.part_1, anon_1.part_2, anon_1.part_3, anon_1.part_4, anon_1.part_5, anon_1.part_6, anon_1.part_7, anon_1.part_8, anon_1.part_9, anon_1.part_10
FROM (SELECT 'activity' AS kind, outcomes.decision_id AS part_0, outcomes.type AS part_1, outcomes.event_id AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.step AS part_5, outcomes.occur_time AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time > %(activity_after)s::BIGINT AND outcomes.occur_time <= %(until)s::BIGINT AND outcomes.type IN ('visit', 'seen', 'opened', 'clicked', 'order', 'store_purchase') AND NOT outcomes.machine_generated ORDER BY outcomes.occur_time DESC, outcomes.event_id
 LIMIT %(most)s OFFSET 0) AS anon_1 UNION ALL SELECT 'pause' AS kind, pauses.channel AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM pauses UNION ALL SELECT 'exposure' AS kind, exposures.experiment AS part_0, exposures.variant AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, exposures.probability AS part_10
FROM exposures
WHERE exposures.customer_key = %(customer_key)s::VARCHAR UNION ALL SELECT 'experiment' AS kind, experiments.experiment AS part_0, experiments.state AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, experiments.exposure AS part_10
FROM experiments UNION ALL SELECT 'budget' AS kind, anon_2.budget AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, anon_2.period_start AS part_5, anon_2.reserved_micros AS part_6, anon_2.committed_micros AS part_7, anon_2.price_time AS part_8, anon_2.leased_micros AS part_9, anon_2.held_price AS part_10
FROM (SELECT budgets.budget AS budget, budgets.period_start AS period_start, (budgets.reserved_micros + CAST((SELECT coalesce(sum(leases.reserved_micros), 0) AS coalesce_1
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT)) - CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_2
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS reserved_micros, budgets.committed_micros + CAST((SELECT coalesce(sum(leases.committed_micros), 0) AS coalesce_3
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS committed_micros, budgets.held_price AS held_price, budgets.price_time AS price_time, CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_4
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start AND leases.holder != %(holder)s::VARCHAR AND leases.expire_time > %(now)s::BIGINT) AS BIGINT) AS leased_micros
FROM budgets
WHERE budgets.period_start = (SELECT max(budgets_1.period_start) AS max_1
FROM budgets AS budgets_1
WHERE budgets_1.budget = budgets.budget AND budgets_1.period_start <= %(until)s::BIGINT)) AS anon_2 UNION ALL SELECT 'budget_change' AS kind, budget_changes.budget AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, budget_changes.number AS part_5, budget_changes.amount_micros AS part_6, budget_changes.file_micros AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM budget_changes

-- find_request
SELECT decisions.decision_id, decisions.step, decisions.request_id, decisions.request_digest, decisions.customer_key, decisions.decide_time, decisions.campaign, decisions.mode, decisions.verdict, decisions.channel, decisions.send_time, decisions.propensity, decisions.price_micros, decisions.order_margin_micros, decisions.policy, decisions.bundle_version, decisions.rules_name, decisions.trainable, decisions.features, decisions.context, decisions.choice, decisions.actions
FROM decisions JOIN requests ON requests.decision_id = decisions.decision_id AND requests.step = decisions.step
WHERE requests.request_id = %(request_id)s::VARCHAR AND requests.step = %(step)s::INTEGER

-- find_step
SELECT decisions.decision_id, decisions.step, decisions.request_id, decisions.request_digest, decisions.customer_key, decisions.decide_time, decisions.campaign, decisions.mode, decisions.verdict, decisions.channel, decisions.send_time, decisions.propensity, decisions.price_micros, decisions.order_margin_micros, decisions.policy, decisions.bundle_version, decisions.rules_name, decisions.trainable, decisions.features, decisions.context, decisions.choice, decisions.actions
FROM decisions
WHERE decisions.decision_id = %(decision_id)s::VARCHAR AND decisions.step = %(step)s::INTEGER

-- find_owner
SELECT decisions.customer_key
FROM decisions
WHERE decisions.decision_id = %(decision_id)s::VARCHAR AND decisions.step = 1

-- list_steps
SELECT decisions.decision_id, decisions.step, decisions.request_id, decisions.request_digest, decisions.customer_key, decisions.decide_time, decisions.campaign, decisions.mode, decisions.verdict, decisions.channel, decisions.send_time, decisions.propensity, decisions.price_micros, decisions.order_margin_micros, decisions.policy, decisions.bundle_version, decisions.rules_name, decisions.trainable, decisions.features, decisions.context, decisions.choice, decisions.actions
FROM decisions
WHERE decisions.decision_id = %(decision_id)s::VARCHAR ORDER BY decisions.step

-- find_outcome
SELECT outcomes.event_id, outcomes.digest, outcomes.decision_id, outcomes.step, outcomes.customer_key, outcomes.type, outcomes.occur_time, outcomes.receive_time, outcomes.status, outcomes.value_micros, outcomes.cost_micros, outcomes.machine_generated, outcomes.csat, outcomes.nps, outcomes.revenue_micros
FROM outcomes
WHERE outcomes.event_id = %(event_id)s::VARCHAR

-- list_outcomes
SELECT outcomes.event_id, outcomes.digest, outcomes.decision_id, outcomes.step, outcomes.customer_key, outcomes.type, outcomes.occur_time, outcomes.receive_time, outcomes.status, outcomes.value_micros, outcomes.cost_micros, outcomes.machine_generated, outcomes.csat, outcomes.nps, outcomes.revenue_micros
FROM outcomes
WHERE outcomes.decision_id = %(decision_id)s::VARCHAR ORDER BY outcomes.occur_time, outcomes.event_id

-- list_purchases
SELECT outcomes.occur_time
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time > %(after)s::BIGINT AND outcomes.type IN ('order', 'store_purchase') ORDER BY outcomes.occur_time

-- list_clicked
SELECT DISTINCT outcomes.decision_id, outcomes.step
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time >= %(since)s::BIGINT AND outcomes.occur_time < %(until)s::BIGINT AND outcomes.type = 'clicked' AND outcomes.status = 'accepted' AND NOT outcomes.machine_generated ORDER BY outcomes.decision_id, outcomes.step

-- list_orders
SELECT outcomes.event_id, outcomes.occur_time
FROM outcomes
WHERE outcomes.customer_key = %(customer_key)s::VARCHAR AND outcomes.occur_time >= %(since)s::BIGINT AND outcomes.occur_time < %(until)s::BIGINT AND outcomes.type IN ('order', 'store_purchase') AND outcomes.status != 'parked' AND NOT outcomes.machine_generated ORDER BY outcomes.occur_time, outcomes.event_id

-- list_statistics
SELECT statistics.bundle, statistics.stage, statistics.channel, statistics.kind, statistics.step, statistics.hour, statistics.observed, statistics.expected
FROM statistics
WHERE statistics.bundle = %(bundle)s::VARCHAR AND statistics.hour >= %(since_hour)s::INTEGER AND statistics.hour <= %(until_hour)s::INTEGER ORDER BY statistics.hour, statistics.stage, statistics.channel, statistics.kind, statistics.step

-- find_contact
SELECT contacts.decision_id, contacts.step, contacts.customer_key, contacts.channel, contacts.topic, contacts.category, contacts.start_time, contacts.end_time, contacts.is_open
FROM contacts
WHERE contacts.decision_id = %(decision_id)s::VARCHAR AND contacts.step = %(step)s::INTEGER

-- find_identity
SELECT identities.customer_key
FROM identities
WHERE identities.identity_hash = %(identity_hash)s

-- count_identities
SELECT count(*) AS count_1
FROM identities
WHERE identities.customer_key = %(customer_key)s::VARCHAR

-- count_all_identities
SELECT count(*) AS count_1
FROM identities

-- find_customer
SELECT customers.profile, customers.create_time, customers.version
FROM customers
WHERE customers.customer_key = %(customer_key)s::VARCHAR

-- list_pauses
SELECT pauses.channel, pauses.pause_time, pauses.reason
FROM pauses ORDER BY pauses.channel

-- find_budget
SELECT budgets.budget, budgets.period_start, (budgets.reserved_micros + CAST((SELECT coalesce(sum(leases.reserved_micros), 0) AS coalesce_1
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT)) - CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_2
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS reserved_micros, budgets.committed_micros + CAST((SELECT coalesce(sum(leases.committed_micros), 0) AS coalesce_3
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS committed_micros, budgets.held_price, budgets.price_time, CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_4
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start AND leases.holder != %(holder)s::VARCHAR AND leases.expire_time > %(now)s::BIGINT) AS BIGINT) AS leased_micros
FROM budgets
WHERE budgets.budget = %(budget)s::VARCHAR AND budgets.period_start <= %(period_start)s::BIGINT ORDER BY budgets.period_start DESC
 LIMIT 1 OFFSET 0

-- list_budget_changes
SELECT budget_changes.budget, budget_changes.number, budget_changes.change_time, budget_changes.amount_micros, budget_changes.file_micros, budget_changes.reason
FROM budget_changes ORDER BY budget_changes.budget, budget_changes.number

-- find_lease
SELECT leases.left_micros
FROM leases
WHERE leases.budget = %(key_budget)s::VARCHAR AND leases.period_start = %(key_period_start)s::BIGINT AND leases.holder = %(key_holder)s::VARCHAR AND leases.expire_time > %(now)s::BIGINT

-- sum_stopped_leases
SELECT CAST(sum(leases.left_micros) AS BIGINT) AS sum_1, CAST(sum(leases.reserved_micros) AS BIGINT) AS sum_2, CAST(sum(leases.committed_micros) AS BIGINT) AS sum_3
FROM leases
WHERE leases.budget = %(key_budget)s::VARCHAR AND leases.period_start = %(key_period_start)s::BIGINT AND leases.expire_time = 0

-- list_expired_leases
SELECT DISTINCT leases.budget, leases.period_start
FROM leases
WHERE leases.expire_time <= %(now)s::BIGINT ORDER BY leases.budget, leases.period_start

-- list_reservations
SELECT reservations.decision_id, reservations.step, reservations.budget, reservations.period_start, reservations.price_micros, reservations.reserved_micros, reservations.committed_micros, reservations.expire_time
FROM reservations
WHERE reservations.decision_id = %(decision_id)s::VARCHAR AND reservations.step = %(step)s::INTEGER ORDER BY reservations.budget

-- list_expired
SELECT reservations.decision_id, reservations.step, reservations.budget, reservations.period_start, reservations.price_micros, reservations.reserved_micros, reservations.committed_micros, reservations.expire_time
FROM reservations
WHERE reservations.reserved_micros > 0 AND reservations.expire_time <= %(now)s::BIGINT ORDER BY reservations.expire_time, reservations.decision_id, reservations.step, reservations.budget

-- list_exposures
SELECT exposures.experiment, exposures.customer_key, exposures.variant, exposures.probability, exposures.expose_time, exposures.decision_id, exposures.rules_name, exposures.is_mixed
FROM exposures
WHERE exposures.customer_key = %(customer_key)s::VARCHAR ORDER BY exposures.experiment

-- count_exposures
SELECT exposures.experiment, exposures.variant, count(*) AS count_1
FROM exposures
WHERE NOT exposures.is_mixed GROUP BY exposures.experiment, exposures.variant ORDER BY exposures.experiment, exposures.variant

-- count_mixed
SELECT exposures.experiment, count(*) AS count_1
FROM exposures
WHERE exposures.is_mixed GROUP BY exposures.experiment

-- list_experiments
SELECT experiments.experiment, experiments.state, experiments.exposure
FROM experiments ORDER BY experiments.experiment

-- list_experiment_changes
SELECT experiment_changes.experiment, experiment_changes.number, experiment_changes.change_time, experiment_changes.state, experiment_changes.exposure, experiment_changes.reason
FROM experiment_changes
WHERE experiment_changes.experiment = %(experiment)s::VARCHAR ORDER BY experiment_changes.number

-- find_fact
SELECT facts.value
FROM facts
WHERE facts.name = %(name)s::VARCHAR

-- insert_decision
INSERT INTO decisions (decision_id, step, request_id, request_digest, customer_key, decide_time, campaign, mode, verdict, channel, send_time, propensity, price_micros, order_margin_micros, policy, bundle_version, rules_name, trainable, features, context, choice, actions) VALUES (%(decision_id)s::VARCHAR, %(step)s::INTEGER, %(request_id)s::VARCHAR, %(request_digest)s, %(customer_key)s::VARCHAR, %(decide_time)s::BIGINT, %(campaign)s::VARCHAR, %(mode)s::VARCHAR, %(verdict)s::VARCHAR, %(channel)s::VARCHAR, %(send_time)s::BIGINT, %(propensity)s, %(price_micros)s::BIGINT, %(order_margin_micros)s::BIGINT, %(policy)s::VARCHAR, %(bundle_version)s::VARCHAR, %(rules_name)s::VARCHAR, %(trainable)s, %(features)s::VARCHAR, %(context)s::VARCHAR, %(choice)s::VARCHAR, %(actions)s)

-- insert_outcome
INSERT INTO outcomes (event_id, digest, decision_id, step, customer_key, type, occur_time, receive_time, status, value_micros, cost_micros, machine_generated, csat, nps, revenue_micros) VALUES (%(event_id)s::VARCHAR, %(digest)s, %(decision_id)s::VARCHAR, %(step)s::INTEGER, %(customer_key)s::VARCHAR, %(type)s::VARCHAR, %(occur_time)s::BIGINT, %(receive_time)s::BIGINT, %(status)s::VARCHAR, %(value_micros)s::BIGINT, %(cost_micros)s::BIGINT, %(machine_generated)s, %(csat)s::INTEGER, %(nps)s::INTEGER, %(revenue_micros)s::BIGINT)

-- insert_contact
INSERT INTO contacts (decision_id, step, customer_key, channel, topic, category, start_time, end_time, is_open) VALUES (%(decision_id)s::VARCHAR, %(step)s::INTEGER, %(customer_key)s::VARCHAR, %(channel)s::VARCHAR, %(topic)s::VARCHAR, %(category)s::VARCHAR, %(start_time)s::BIGINT, %(end_time)s::BIGINT, %(is_open)s)

-- insert_reservation
INSERT INTO reservations (decision_id, step, budget, period_start, price_micros, reserved_micros, committed_micros, expire_time) VALUES (%(decision_id)s::VARCHAR, %(step)s::INTEGER, %(budget)s::VARCHAR, %(period_start)s::BIGINT, %(price_micros)s::BIGINT, %(reserved_micros)s::BIGINT, %(committed_micros)s::BIGINT, %(expire_time)s::BIGINT)

-- insert_pause
INSERT INTO pauses (channel, pause_time, reason) VALUES (%(channel)s::VARCHAR, %(pause_time)s::BIGINT, %(reason)s::VARCHAR)

-- insert_budget_change
INSERT INTO budget_changes (budget, number, change_time, amount_micros, file_micros, reason) VALUES (%(budget)s::VARCHAR, %(number)s::INTEGER, %(change_time)s::BIGINT, %(amount_micros)s::BIGINT, %(file_micros)s::BIGINT, %(reason)s::VARCHAR)

-- insert_exposure
INSERT INTO exposures (experiment, customer_key, variant, probability, expose_time, decision_id, rules_name, is_mixed) VALUES (%(experiment)s::VARCHAR, %(customer_key)s::VARCHAR, %(variant)s::VARCHAR, %(probability)s, %(expose_time)s::BIGINT, %(decision_id)s::VARCHAR, %(rules_name)s::VARCHAR, %(is_mixed)s)

-- delete_exposures
DELETE FROM exposures WHERE exposures.customer_key = %(customer_key)s::VARCHAR

-- move_exposures
UPDATE exposures SET customer_key=%(new_customer_key)s::VARCHAR WHERE exposures.customer_key = %(key_customer_key)s::VARCHAR

-- insert_experiment
INSERT INTO experiments (experiment, state, exposure) VALUES (%(experiment)s::VARCHAR, %(state)s::VARCHAR, %(exposure)s)

-- delete_experiment
DELETE FROM experiments WHERE experiments.experiment = %(experiment)s::VARCHAR

-- insert_experiment_change
INSERT INTO experiment_changes (experiment, number, change_time, state, exposure, reason) VALUES (%(experiment)s::VARCHAR, %(number)s::INTEGER, %(change_time)s::BIGINT, %(state)s::VARCHAR, %(exposure)s, %(reason)s::VARCHAR)

-- delete_statistics
DELETE FROM statistics WHERE statistics.hour < %(before_hour)s::INTEGER

-- delete_pause
DELETE FROM pauses WHERE pauses.channel = %(channel)s::VARCHAR

-- delete_customer
DELETE FROM customers WHERE customers.customer_key = %(customer_key)s::VARCHAR

-- claim_customer
UPDATE customers SET version=(customers.version + 1) WHERE customers.customer_key = %(key_customer_key)s::VARCHAR AND customers.version = %(key_version)s::BIGINT

-- touch_customer
UPDATE customers SET version=(customers.version + 1) WHERE customers.customer_key = %(key_customer_key)s::VARCHAR

-- update_reservation
UPDATE reservations SET reserved_micros=%(new_reserved_micros)s::BIGINT, committed_micros=%(new_committed_micros)s::BIGINT WHERE reservations.decision_id = %(key_decision_id)s::VARCHAR AND reservations.step = %(key_step)s::INTEGER AND reservations.budget = %(key_budget)s::VARCHAR AND reservations.reserved_micros = %(key_reserved_micros)s::BIGINT AND reservations.committed_micros = %(key_committed_micros)s::BIGINT

-- insert_lease
INSERT INTO leases (budget, period_start, holder, left_micros, reserved_micros, committed_micros, expire_time) VALUES (%(budget)s::VARCHAR, %(period_start)s::BIGINT, %(holder)s::VARCHAR, %(left_micros)s::BIGINT, %(reserved_micros)s::BIGINT, %(committed_micros)s::BIGINT, %(expire_time)s::BIGINT)

-- take_lease
UPDATE leases SET left_micros=(leases.left_micros - %(taken_micros)s::BIGINT) WHERE leases.budget = %(key_budget)s::VARCHAR AND leases.period_start = %(key_period_start)s::BIGINT AND leases.holder = %(key_holder)s::VARCHAR AND leases.left_micros >= %(need_micros)s::BIGINT AND leases.expire_time > %(now)s::BIGINT

-- stop_leases
UPDATE leases SET expire_time=0 WHERE leases.budget = %(key_budget)s::VARCHAR AND leases.period_start = %(key_period_start)s::BIGINT AND (leases.holder = %(key_holder)s::VARCHAR OR leases.expire_time <= %(now)s::BIGINT)

-- delete_stopped_leases
DELETE FROM leases WHERE leases.budget = %(key_budget)s::VARCHAR AND leases.period_start = %(key_period_start)s::BIGINT AND leases.expire_time = 0

-- update_profile
UPDATE customers SET profile=%(new_profile)s::VARCHAR, update_time=%(new_update_time)s::BIGINT WHERE customers.customer_key = %(key_customer_key)s::VARCHAR

-- update_trainable
UPDATE decisions SET trainable=%(new_trainable)s WHERE decisions.decision_id = %(key_decision_id)s::VARCHAR AND decisions.step = %(key_step)s::INTEGER

-- update_contact
UPDATE contacts SET start_time=%(new_start_time)s::BIGINT, end_time=%(new_end_time)s::BIGINT, is_open=%(new_is_open)s WHERE contacts.decision_id = %(key_decision_id)s::VARCHAR AND contacts.step = %(key_step)s::INTEGER

-- update_fact
UPDATE facts SET value=%(new_value)s WHERE facts.name = %(key_name)s::VARCHAR

-- update_outcome
UPDATE outcomes SET step=%(new_step)s::INTEGER, customer_key=%(new_customer_key)s::VARCHAR, status=%(new_status)s::VARCHAR WHERE outcomes.event_id = %(key_event_id)s::VARCHAR

-- erase_requests
DELETE FROM requests WHERE requests.decision_id IN (SELECT decisions.decision_id
FROM decisions
WHERE decisions.customer_key = %(customer_key)s::VARCHAR)

-- erase_decisions
UPDATE decisions SET request_id='', request_digest=%(nothing)s, customer_key=%(new_customer_key)s::VARCHAR, trainable=%(is_trainable)s, features='', context='', choice='', actions=NULL WHERE decisions.customer_key = %(key_customer_key)s::VARCHAR

-- erase_outcomes
UPDATE outcomes SET digest=%(nothing)s, customer_key=%(new_customer_key)s::VARCHAR, csat=NULL, nps=NULL WHERE outcomes.customer_key = %(key_customer_key)s::VARCHAR

-- delete_contacts
DELETE FROM contacts WHERE contacts.customer_key = %(customer_key)s::VARCHAR

-- delete_identities
DELETE FROM identities WHERE identities.customer_key = %(customer_key)s::VARCHAR

-- move_decisions
UPDATE decisions SET customer_key=%(new_customer_key)s::VARCHAR WHERE decisions.customer_key = %(key_customer_key)s::VARCHAR

-- move_outcomes
UPDATE outcomes SET customer_key=%(new_customer_key)s::VARCHAR WHERE outcomes.customer_key = %(key_customer_key)s::VARCHAR

-- move_contacts
UPDATE contacts SET customer_key=%(new_customer_key)s::VARCHAR WHERE contacts.customer_key = %(key_customer_key)s::VARCHAR

-- move_identities
UPDATE identities SET customer_key=%(new_customer_key)s::VARCHAR WHERE identities.customer_key = %(key_customer_key)s::VARCHAR

-- insert_request
INSERT INTO requests (request_id, step, decision_id) VALUES (%(request_id)s::VARCHAR, %(step)s::INTEGER, %(decision_id)s::VARCHAR) ON CONFLICT DO NOTHING

-- insert_customer
INSERT INTO customers (customer_key, profile, create_time, update_time, version) VALUES (%(customer_key)s::VARCHAR, %(profile)s::VARCHAR, %(create_time)s::BIGINT, %(update_time)s::BIGINT, %(version)s::BIGINT) ON CONFLICT DO NOTHING

-- insert_identity
INSERT INTO identities (identity_hash, customer_key) VALUES (%(identity_hash)s, %(customer_key)s::VARCHAR) ON CONFLICT DO NOTHING

-- insert_fact
INSERT INTO facts (name, value) VALUES (%(name)s::VARCHAR, %(value)s) ON CONFLICT DO NOTHING

-- add_statistics
INSERT INTO statistics (bundle, hour, stage, channel, kind, step, observed, expected) VALUES (%(bundle)s::VARCHAR, %(hour)s::INTEGER, %(stage)s::VARCHAR, %(channel)s::VARCHAR, %(kind)s::VARCHAR, %(step)s::INTEGER, %(observed)s::BIGINT, %(expected)s::BIGINT) ON CONFLICT (bundle, hour, stage, channel, kind, step) DO UPDATE SET observed = (statistics.observed + excluded.observed), expected = (statistics.expected + excluded.expected)

-- add_budget
INSERT INTO budgets (budget, period_start, reserved_micros, committed_micros, held_price, price_time) VALUES (%(budget)s::VARCHAR, %(period_start)s::BIGINT, %(reserved_micros)s::BIGINT, %(committed_micros)s::BIGINT, %(held_price)s, %(price_time)s::BIGINT) ON CONFLICT (budget, period_start) DO UPDATE SET reserved_micros = (budgets.reserved_micros + excluded.reserved_micros), committed_micros = (budgets.committed_micros + excluded.committed_micros), held_price = excluded.held_price, price_time = excluded.price_time

-- add_lease
INSERT INTO leases (budget, period_start, holder, left_micros, reserved_micros, committed_micros, expire_time) VALUES (%(budget)s::VARCHAR, %(period_start)s::BIGINT, %(holder)s::VARCHAR, %(left_micros)s::BIGINT, %(reserved_micros)s::BIGINT, %(committed_micros)s::BIGINT, %(expire_time)s::BIGINT) ON CONFLICT (budget, period_start, holder) DO UPDATE SET reserved_micros = (leases.reserved_micros + excluded.reserved_micros), committed_micros = (leases.committed_micros + excluded.committed_micros)
