-- Sizes of the pictures an order was made from: sellers bill them, also when a restart brings the order home.

ALTER TABLE attempts ADD COLUMN inputs BLOB;
